package server

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// target is the object or collection a URL names.
type target struct {
	kind        *api.Kind
	namespace   string // empty: all, or a cluster-scoped kind
	name        string // empty: the collection
	subresource string
	watch       bool // the old /watch/ prefix
}

// segments splits a URL path. Empty segments are kept out; a trailing slash does not matter.
func segments(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// parseTarget reads /api/v1/… and /apis/GROUP/VERSION/… paths; nil: no such resource.
func parseTarget(path []string) *target {
	var gv schema.GroupVersion
	switch {
	case len(path) >= 3 && path[0] == "api":
		gv.Version, path = path[1], path[2:]
	case len(path) >= 4 && path[0] == "apis":
		gv, path = schema.GroupVersion{Group: path[1], Version: path[2]}, path[3:]
	default:
		return nil
	}
	t := &target{}
	if path[0] == "watch" && len(path) > 1 {
		t.watch, path = true, path[1:]
	}
	if path[0] == "namespaces" && len(path) >= 3 && !isNamespaceSubresource(gv, path) {
		t.namespace, path = path[1], path[2:]
	}
	t.kind = api.ByResource(gv.WithResource(path[0]))
	if t.kind == nil || len(path) > 3 || (t.namespace != "" && !t.kind.Namespaced) {
		return nil
	}
	if !t.object(path[1:]) {
		return nil
	}
	return t
}

// object reads the name and the subresource that may follow a kind. It returns false when there is no such thing.
func (t *target) object(path []string) bool {
	if len(path) > 0 {
		t.name = path[0]
	}
	if len(path) > 1 {
		t.subresource = path[1]
		if _, known := subresources[t.subresource]; !known || !offers(t.kind, t.subresource) {
			return false
		}
	}
	return !t.kind.Namespaced || t.name == "" || t.namespace != ""
}

// isNamespaceSubresource tells /namespaces/shop/status from /namespaces/shop/pods.
func isNamespaceSubresource(gv schema.GroupVersion, path []string) bool {
	return gv.Group == "" && len(path) == 3 && offers(api.Namespaces, path[2])
}

// ways are Kubernetes' subresources that enter or change what runs. None is offered; who asks is told so, and not
// that there is no such object.
var ways = []string{"exec", "attach", "portforward", "proxy", "eviction", "ephemeralcontainers", "resize", "scale"}

// notOffered returns the resource and the subresource of a path that leads into one of ways.
func notOffered(path []string) (resource, subresource string) {
	for i, segment := range path {
		if i == 0 || !slices.Contains(ways, segment) {
			continue
		}
		if t := parseTarget(path[:i]); t != nil && t.name != "" && t.subresource == "" {
			return t.kind.Resource, segment
		}
	}
	return "", ""
}

func offers(kind *api.Kind, subresource string) bool {
	for _, name := range subresourceNames(kind) {
		if name == subresource {
			return true
		}
	}
	return false
}

// query is the part of a request behind the question mark, checked.
type query struct {
	labels       labels.Selector
	fields       fields.Selector
	limit        int
	continuation string
	revision     uint64
	exact        bool // resourceVersion is the very state wanted
	watch        bool
	initial      bool // sendInitialEvents
	bookmarks    bool
	timeout      time.Duration
	dryRun       bool
	fieldManager string
	force        bool
}

func parseQuery(r *http.Request) (query, error) {
	values := r.URL.Query()
	q := query{watch: flag(values, "watch"), initial: flag(values, "sendInitialEvents"), bookmarks: flag(values, "allowWatchBookmarks"), timeout: defaultWatch,
		continuation: values.Get("continue"), fieldManager: fieldManager(r, values), force: flag(values, "force")}
	var err error
	if selector := values.Get("labelSelector"); selector != "" {
		if q.labels, err = labels.Parse(selector); err != nil {
			return q, badRequest("unable to parse requirement: %v", err)
		}
	}
	if selector := values.Get("fieldSelector"); selector != "" {
		if q.fields, err = fields.ParseSelector(selector); err != nil {
			return q, badRequest("unable to parse field selector: %v", err)
		}
	}
	if q.limit, err = number(values, "limit"); err != nil {
		return q, err
	}
	seconds, err := number(values, "timeoutSeconds")
	if err != nil {
		return q, err
	}
	if seconds > 0 {
		q.timeout = min(time.Duration(seconds)*time.Second, maxWatch)
	}
	if text := values.Get("resourceVersion"); text != "" && text != "0" {
		if q.revision, err = strconv.ParseUint(text, 10, 64); err != nil {
			return q, badRequest("resourceVersion: got %q, want a number", text)
		}
	}
	if err := q.match(values); err != nil {
		return q, err
	}
	switch all := values["dryRun"]; {
	case len(all) == 1 && all[0] == "All":
		q.dryRun = true
	case len(all) != 0:
		return q, badRequest("dryRun: got %q, want All", strings.Join(all, ","))
	}
	return q, nil
}

// match reads resourceVersionMatch, by Kubernetes' rules: without it a list of pages begins at the very state named.
func (q *query) match(values url.Values) error {
	version, match := values.Get("resourceVersion"), metav1.ResourceVersionMatch(values.Get("resourceVersionMatch"))
	options := &internalversion.ListOptions{ResourceVersion: version, ResourceVersionMatch: match, Continue: q.continuation, Watch: q.watch}
	if q.watch && values.Has("sendInitialEvents") {
		options.SendInitialEvents = &q.initial
	}
	if problems := validation.ValidateListOptions(options, true); len(problems) > 0 {
		return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", problems)
	}
	if q.continuation != "" && q.revision != 0 {
		return badRequest("specifying resource version is not allowed when using continue")
	}
	q.exact = match == metav1.ResourceVersionMatchExact || match == "" && q.limit > 0
	return nil
}

// fieldManager names the writer: as asked for, or the first word of the user agent, as Kubernetes does.
func fieldManager(r *http.Request, values url.Values) string {
	if name := values.Get("fieldManager"); name != "" {
		return name
	}
	name, _, _ := strings.Cut(r.UserAgent(), "/")
	if len(name) > 128 {
		name = name[:128]
	}
	return name
}

func flag(values url.Values, name string) bool {
	switch values.Get(name) {
	case "":
		return values.Has(name) && name != "watch"
	case "0", "false":
		return false
	}
	return true
}

func number(values url.Values, name string) (int, error) {
	text := values.Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, badRequest("%s: got %q, want a number that is not negative", name, text)
	}
	return n, nil
}
