package server

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// resources serves everything below /api/ and /apis/.
func (s *server) resources(w http.ResponseWriter, r *http.Request) {
	path := segments(r.URL.Path)
	t := parseTarget(path)
	if t == nil {
		if r.Method == http.MethodGet && s.discovery.serve(w, path) {
			return
		}
		if resource, subresource := notOffered(path); resource != "" {
			writeError(w, r, methodNotAllowed("%s/%s is not offered here: people read, and change the cluster in Git", resource, subresource))
			return
		}
		s.notFound(w, r)
		return
	}
	if r.Method != http.MethodGet {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout)) // a writer without deadlines is no connection
	}
	if r.ContentLength > largeBody || r.ContentLength < 0 {
		leave, err := s.large(r)
		if err != nil {
			writeError(w, r, err)
			return
		}
		defer leave()
	}
	q, err := parseQuery(r)
	if err != nil {
		writeError(w, r, err)
		return
	}
	if err := s.dispatch(w, r, t, q); err != nil {
		writeError(w, r, err)
	}
}

// dispatch calls the verb. An error returned means that nothing was written to w yet.
func (s *server) dispatch(w http.ResponseWriter, r *http.Request, t *target, q query) error {
	switch {
	case t.subresource == "log":
		return s.logs(w, r, t)
	case r.Method == http.MethodGet && t.subresource != "" && t.subresource != "status", r.Method == http.MethodDelete && t.subresource != "":
		return methodNotAllowed("%s is not supported on %s/%s", r.Method, t.kind.Resource, t.subresource)
	case r.Method == http.MethodPost && (t.name == "" || t.subresource != ""):
		return s.create(w, r, t, q)
	case t.name == "":
		return s.dispatchKind(w, r, t, q)
	}
	switch r.Method {
	case http.MethodGet:
		return s.get(w, r, t)
	case http.MethodPut:
		return s.update(w, r, t, q)
	case http.MethodPatch:
		return s.patch(w, r, t, q)
	case http.MethodDelete:
		return s.delete(w, r, t, q)
	}
	return apierrors.NewMethodNotSupported(t.kind.GroupResource(), r.Method)
}

// dispatchKind calls a verb on all objects of a kind.
func (s *server) dispatchKind(w http.ResponseWriter, r *http.Request, t *target, q query) error {
	switch {
	case r.Method != http.MethodGet:
		return apierrors.NewMethodNotSupported(t.kind.GroupResource(), r.Method)
	case q.watch || t.watch:
		return s.watch(w, r, t, q)
	}
	return s.list(w, r, t, q)
}

// answer writes one object.
func (s *server) answer(w http.ResponseWriter, r *http.Request, code int, obj api.Object) error {
	kind, err := api.KindOf(obj)
	if err != nil {
		return err
	}
	e, err := s.encoder(r, kind)
	if err != nil {
		return err
	}
	value, err := e.object(obj)
	if err != nil {
		return err
	}
	writeJSON(w, code, value)
	return nil
}

func (s *server) get(w http.ResponseWriter, r *http.Request, t *target) error {
	obj, err := s.client(r).Get(r.Context(), t.kind, t.namespace, t.name)
	if err != nil {
		return err
	}
	return s.answer(w, r, http.StatusOK, obj)
}

func (s *server) list(w http.ResponseWriter, r *http.Request, t *target, q query) error {
	e, err := s.encoder(r, t.kind)
	if err != nil {
		return err
	}
	l, err := s.client(r).List(r.Context(), t.kind, store.ListOptions{Namespace: t.namespace, Labels: q.labels, Fields: q.fields, Limit: q.limit, Continue: q.continuation, Revision: q.revision, Exact: q.exact})
	if err != nil {
		return err
	}
	if len(l.Items) > largeList {
		leave, err := s.large(r)
		if err != nil {
			return err
		}
		defer leave()
	}
	value, err := e.list(l)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, value)
	return nil
}

func (s *server) create(w http.ResponseWriter, r *http.Request, t *target, q query) error {
	kind := t.kind
	if sub := subresources[t.subresource].kind; sub.Kind != "" {
		kind = api.ByGVK(sub)
	} else if t.subresource != "" {
		return apierrors.NewMethodNotSupported(t.kind.GroupResource(), r.Method)
	}
	obj, err := decodeBody(r, kind)
	if err != nil {
		return err
	}
	if err := agree(obj, t, kind.Namespaced); err != nil {
		return err
	}
	made, err := s.client(r).Create(r.Context(), obj, store.CreateOptions{Subresource: t.subresource, FieldManager: q.fieldManager, DryRun: q.dryRun})
	if err != nil {
		return err
	}
	warn(w, made)
	return s.answer(w, r, http.StatusCreated, made)
}

func (s *server) update(w http.ResponseWriter, r *http.Request, t *target, q query) error {
	obj, err := decodeBody(r, t.kind)
	if err != nil {
		return err
	}
	if err := agree(obj, t, t.kind.Namespaced); err != nil {
		return err
	}
	updated, err := s.client(r).Update(r.Context(), obj, store.UpdateOptions{Subresource: t.subresource, FieldManager: q.fieldManager, DryRun: q.dryRun})
	if err != nil {
		return err
	}
	warn(w, updated)
	return s.answer(w, r, http.StatusOK, updated)
}

// warn adds what kubectl shows as warnings: what was accepted but is unwise, or not acted on.
func warn(w http.ResponseWriter, obj api.Object) {
	for _, text := range api.Warnings(obj) {
		w.Header().Add("Warning", "299 - "+strconv.Quote(text))
	}
}

func (s *server) patch(w http.ResponseWriter, r *http.Request, t *target, q query) error {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return badRequest("Content-Type: got %q, want a patch type", r.Header.Get("Content-Type"))
	}
	body, err := readBody(r)
	if err != nil {
		return err
	}
	patched, err := s.client(r).Patch(r.Context(), t.kind, t.namespace, t.name, store.Patch{Type: types.PatchType(media), Data: body,
		Subresource: t.subresource, FieldManager: q.fieldManager, Force: q.force, DryRun: q.dryRun})
	if err != nil {
		return err
	}
	warn(w, patched)
	return s.answer(w, r, http.StatusOK, patched)
}

func (s *server) delete(w http.ResponseWriter, r *http.Request, t *target, q query) error {
	opts, err := deleteOptions(r, q)
	if err != nil {
		return err
	}
	last, err := s.client(r).Delete(r.Context(), t.kind, t.namespace, t.name, opts)
	if err != nil {
		return err
	}
	return s.answer(w, r, http.StatusOK, last)
}

func deleteOptions(r *http.Request, q query) (store.DeleteOptions, error) {
	opts := store.DeleteOptions{DryRun: q.dryRun}
	body, err := readBody(r)
	if err != nil {
		return opts, err
	}
	var asked metav1.DeleteOptions
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media == runtime.ContentTypeProtobuf {
		_, _, err = protobufSerializer.Decode(body, nil, &asked)
	} else if len(body) > 0 {
		err = yaml.Unmarshal(body, &asked)
	}
	if err != nil {
		return opts, badRequest("DeleteOptions: %v", err)
	}
	opts.DryRun = opts.DryRun || len(asked.DryRun) > 0
	opts.GracePeriodSeconds = asked.GracePeriodSeconds
	if text := r.URL.Query().Get("gracePeriodSeconds"); text != "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return opts, badRequest("gracePeriodSeconds: got %q, want a number", text)
		}
		opts.GracePeriodSeconds = &seconds
	}
	if asked.PropagationPolicy != nil {
		opts.Propagation = *asked.PropagationPolicy
	} else if policy := r.URL.Query().Get("propagationPolicy"); policy != "" {
		opts.Propagation = metav1.DeletionPropagation(policy)
	}
	if p := asked.Preconditions; p != nil {
		if p.UID != nil {
			opts.UID = *p.UID
		}
		if p.ResourceVersion != nil {
			if opts.Revision, err = strconv.ParseUint(*p.ResourceVersion, 10, 64); err != nil {
				return opts, badRequest("preconditions.resourceVersion: got %q, want a number", *p.ResourceVersion)
			}
		}
	}
	return opts, nil
}

// readBody reads at most maxBody bytes.
func readBody(r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, apierrors.NewRequestEntityTooLargeError("the body is larger than 3 MiB")
	}
	if err != nil {
		return nil, badRequest("read body: %v", err)
	}
	return body, nil
}

func decodeBody(r *http.Request, kind *api.Kind) (api.Object, error) {
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	decode := api.DecodeAs
	switch media {
	case "", "application/json", "application/yaml":
	case runtime.ContentTypeProtobuf:
		decode = decodeProtobuf
	default:
		return nil, &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType,
			Reason: metav1.StatusReasonUnsupportedMediaType, Message: "the body must be application/json, application/yaml or " + runtime.ContentTypeProtobuf}}
	}
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	obj, err := decode(body, kind.GroupVersionKind)
	if err != nil {
		return nil, badRequest("%s in version %q cannot be handled: %v", kind.Kind, kind.Version, err)
	}
	return obj, nil
}

var protobufSerializer = protobuf.NewSerializer(api.Scheme, api.Scheme)

func decodeProtobuf(data []byte, gvk schema.GroupVersionKind) (api.Object, error) {
	obj, found, err := protobufSerializer.Decode(data, &gvk, nil)
	if err != nil {
		return nil, err
	}
	if *found != gvk {
		return nil, fmt.Errorf("got %s, want %s", found, gvk)
	}
	typed, ok := obj.(api.Object)
	if !ok {
		return nil, fmt.Errorf("got %T, which is no object of its own", obj)
	}
	return typed, nil
}

// agree fills name and namespace from the URL, and refuses a body that says otherwise.
func agree(obj api.Object, t *target, namespaced bool) error {
	if namespaced && obj.GetNamespace() == "" {
		obj.SetNamespace(t.namespace)
	}
	if namespaced && obj.GetNamespace() != t.namespace {
		return badRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	if t.name == "" {
		return nil
	}
	if obj.GetName() == "" {
		obj.SetName(t.name)
	}
	if obj.GetName() != t.name {
		return badRequest("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), t.name)
	}
	return nil
}
