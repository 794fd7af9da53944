package server

import (
	"encoding/json"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// encoder writes objects in the shape the request asked for, with what its sender may not see masked. It is the
// only place where objects become bytes for the wire.
type encoder struct {
	kind    *api.Kind
	id      registry.Identity
	shape   shape
	tables  *tables
	include metav1.IncludeObjectPolicy
}

type shape int

const (
	asJSON shape = iota
	asTable
	asMetadata // PartialObjectMetadata
)

// negotiate picks the first shape of the Accept header that is offered.
func negotiate(r *http.Request) (shape, error) {
	accept := r.Header.Get("Accept")
	if accept == "" {
		return asJSON, nil
	}
	for _, clause := range strings.Split(accept, ",") {
		media, params, err := mime.ParseMediaType(clause)
		if err != nil {
			continue
		}
		switch media {
		case "application/json", "*/*", "application/*", "application/yaml":
		default:
			continue
		}
		switch {
		case params["as"] == "":
			return asJSON, nil
		case params["g"] != "meta.k8s.io" || params["v"] != "v1":
		case params["as"] == "Table":
			return asTable, nil
		case params["as"] == "PartialObjectMetadata", params["as"] == "PartialObjectMetadataList":
			return asMetadata, nil
		}
	}
	return asJSON, &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "only application/json is offered, as the object, as a Table or as PartialObjectMetadata"}}
}

func (s *server) encoder(r *http.Request, kind *api.Kind) (*encoder, error) {
	shape, err := negotiate(r)
	if err != nil {
		return nil, err
	}
	include := metav1.IncludeObjectPolicy(r.URL.Query().Get("includeObject"))
	switch include {
	case "":
		include = metav1.IncludeMetadata
	case metav1.IncludeMetadata, metav1.IncludeNone, metav1.IncludeObject:
	default:
		return nil, badRequest("includeObject: got %q, want Metadata, None or Object", include)
	}
	return &encoder{kind: kind, id: identityOf(r), shape: shape, tables: s.tables, include: include}, nil
}

// visible returns obj as the request's sender may see it, with kind and apiVersion set. obj itself is shared and
// stays as it is.
func (e *encoder) visible(obj api.Object) api.Object {
	obj = registry.Mask(e.id, obj)
	if obj.GetObjectKind().GroupVersionKind().Kind != "" {
		return obj
	}
	kind, err := api.KindOf(obj)
	if err != nil {
		return obj
	}
	shallow := reflect.New(reflect.TypeOf(obj).Elem())
	shallow.Elem().Set(reflect.ValueOf(obj).Elem())
	named := shallow.Interface().(api.Object)
	named.GetObjectKind().SetGroupVersionKind(kind.GroupVersionKind)
	return named
}

// object returns what stands for one object in the answer.
func (e *encoder) object(obj api.Object) (any, error) {
	seen := e.visible(obj)
	switch e.shape {
	case asTable:
		return e.tables.table(e.kind, []api.Object{seen}, e.include)
	case asMetadata:
		return partial(seen), nil
	default:
		return seen, nil
	}
}

func partial(obj api.Object) *metav1.PartialObjectMetadata {
	p := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: "meta.k8s.io/v1"}}
	if holder, ok := obj.(metav1.ObjectMetaAccessor); ok {
		if meta, ok := holder.GetObjectMeta().(*metav1.ObjectMeta); ok {
			p.ObjectMeta = *meta
		}
	}
	return p
}

// list is the envelope of every list: items are encoded one by one.
type list struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []json.RawMessage `json:"items"`
}

func (e *encoder) list(l store.List) (any, error) {
	meta := metav1.ListMeta{ResourceVersion: strconv.FormatUint(l.Revision, 10), Continue: l.Continue}
	if l.Remaining > 0 {
		remaining := int64(l.Remaining)
		meta.RemainingItemCount = &remaining
	}
	if e.shape == asTable {
		seen := make([]api.Object, len(l.Items))
		for i, obj := range l.Items {
			seen[i] = e.visible(obj)
		}
		table, err := e.tables.table(e.kind, seen, e.include)
		if err != nil {
			return nil, err
		}
		table.ListMeta = meta
		return table, nil
	}
	out := list{TypeMeta: metav1.TypeMeta{Kind: e.kind.Kind + "List", APIVersion: e.kind.GroupVersion().String()}, ListMeta: meta, Items: make([]json.RawMessage, len(l.Items))}
	if e.shape == asMetadata {
		out.TypeMeta = metav1.TypeMeta{Kind: "PartialObjectMetadataList", APIVersion: "meta.k8s.io/v1"}
	}
	for i, obj := range l.Items {
		item, err := e.object(obj)
		if err != nil {
			return nil, err
		}
		if out.Items[i], err = json.Marshal(item); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func writeBody(w http.ResponseWriter, code int, contentType string, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		http.Error(w, "encode answer", http.StatusInternalServerError)
		return
	}
	send(w, code, contentType, data)
}
