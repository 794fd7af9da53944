// Package ownership keeps track of who set which field of an object (metadata.managedFields), and merges what
// someone applies with what others own: server-side apply.
//
// It owns that bookkeeping and nothing else: whether a change is allowed or valid is decided elsewhere. Programs
// that write the same fields each time take a short way with field sets made once; everybody else goes through
// upstream's merge.
package ownership

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"github.com/slipway-dev/slipway/apiserver/api"
	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
)

// By says who changes an object and how.
type By struct {
	Manager     string
	Subresource string // "" or "status"
	Force       bool   // apply: take fields from other managers
	Now         metav1.Time
}

// Tracker holds what is made once per kind. The schema of the built-in kinds is read when it is first needed.
type Tracker struct {
	schema func() (managedfields.TypeConverter, error)

	mu       sync.Mutex
	managers map[key]*managedfields.FieldManager
}

// typed returns what turns the kind's objects into values with a schema. Own kinds have none.
func (t *Tracker) typed(kind *api.Kind) (managedfields.TypeConverter, error) {
	if kind.Group == slipwayv1.SchemeGroupVersion.Group {
		return managedfields.NewDeducedTypeConverter(), nil
	}
	return t.schema()
}

type key struct {
	kind        *api.Kind
	subresource string
}

// New returns a Tracker for the kinds of the table.
func New() *Tracker {
	return &Tracker{
		schema:   sync.OnceValues(builtIn),
		managers: map[key]*managedfields.FieldManager{},
	}
}

// manager returns upstream's bookkeeper for a kind.
func (t *Tracker) manager(kind *api.Kind, subresource string) (*managedfields.FieldManager, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := key{kind, subresource}
	if m := t.managers[at]; m != nil {
		return m, nil
	}
	types, err := t.typed(kind)
	if err != nil {
		return nil, err
	}
	m, err := managedfields.NewDefaultFieldManager(types, api.Scheme, api.Scheme, api.Scheme,
		kind.GroupVersionKind, kind.GroupVersion(), subresource, ignored(kind, subresource))
	if err != nil {
		return nil, fmt.Errorf("field manager of %s: %w", kind, err)
	}
	t.managers[at] = m
	return m, nil
}

// ignored are the fields a write cannot set, so that nobody owns them by it: status with the object itself,
// everything but status with the status subresource.
func ignored(kind *api.Kind, subresource string) map[fieldpath.APIVersion]fieldpath.Filter {
	if !kind.Status {
		return nil
	}
	path := fieldpath.MakePathOrDie("status")
	if subresource == "status" {
		path = fieldpath.MakePathOrDie("spec")
	}
	version := fieldpath.APIVersion(kind.GroupVersion().String())
	return fieldpath.NewExcludeFilterSetMap(map[fieldpath.APIVersion]*fieldpath.Set{version: fieldpath.NewSet(path)})
}

// Apply merges what by.Manager wants (JSON or YAML, a part of an object) with live and returns the result, or a
// Conflict with a cause for each field another manager owns. Live is nil when the object does not exist.
func (t *Tracker) Apply(kind *api.Kind, live api.Object, wanted []byte, by By) (api.Object, error) {
	m, err := t.manager(kind, by.Subresource)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	data, err := api.ToJSON(wanted)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("apply %s: %v", kind, err))
	}
	patch := &unstructured.Unstructured{}
	if err := patch.UnmarshalJSON(data); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("apply %s: %v", kind, err))
	}
	before := []metav1.ManagedFieldsEntry(nil)
	if live == nil {
		live = kind.New()
	} else {
		before = live.GetManagedFields()
		live = t.spelledOut(kind, live)
	}
	result, err := m.Apply(live, patch, by.Manager, by.Force)
	if err != nil {
		if apierrors.IsConflict(err) || apierrors.IsBadRequest(err) {
			return nil, err
		}
		return nil, apierrors.NewBadRequest(err.Error())
	}
	obj, ok := result.(api.Object)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("apply %s: got %T", kind, result))
	}
	obj.GetObjectKind().SetGroupVersionKind(kind.GroupVersionKind)
	setTimes(obj, before, by.Now)
	if len(before) == 0 && !slices.ContainsFunc(obj.GetManagedFields(), func(e metav1.ManagedFieldsEntry) bool { return e.Manager == by.Manager }) {
		obj.SetManagedFields(nil) // nothing was applied but a name: there is nothing to own
	}
	return obj, nil
}

// Update records in updated, which is changed, that by.Manager made it from live; live is nil for a new object.
// A failure of the bookkeeping keeps live's record: a write never fails by it.
func (t *Tracker) Update(kind *api.Kind, live, updated api.Object, by By) error {
	m, err := t.manager(kind, by.Subresource)
	if err != nil {
		return err
	}
	var before []metav1.ManagedFieldsEntry
	if live == nil {
		live = kind.New()
	} else {
		before = live.GetManagedFields()
		live = t.spelledOut(kind, live)
	}
	updated.SetManagedFields(live.GetManagedFields())
	result := m.UpdateNoErrors(live, updated, by.Manager)
	obj, ok := result.(api.Object)
	if !ok {
		return fmt.Errorf("track fields of %s: got %T", kind, result)
	}
	updated.SetManagedFields(obj.GetManagedFields())
	setTimes(updated, before, by.Now)
	return nil
}

// spelledOut returns obj with apiVersion and kind, which the merge needs, and with each field named in the records
// that Part made whole.
func (t *Tracker) spelledOut(kind *api.Kind, obj api.Object) api.Object {
	entries := obj.GetManagedFields()
	at := slices.IndexFunc(entries, func(e metav1.ManagedFieldsEntry) bool {
		return e.Subresource == "" && e.FieldsV1 != nil && bytes.Equal(e.FieldsV1.GetRawBytes(), objectFields[kind.GroupVersionKind].GetRawBytes())
	})
	if at < 0 && obj.GetObjectKind().GroupVersionKind() == kind.GroupVersionKind {
		return obj
	}
	named := obj.DeepCopyObject().(api.Object)
	named.GetObjectKind().SetGroupVersionKind(kind.GroupVersionKind)
	if at < 0 {
		return named
	}
	fields, err := t.allFields(kind, obj)
	if err != nil {
		return named // the record stays as it is: true, but without conflicts
	}
	named.GetManagedFields()[at].FieldsV1 = fields
	return named
}

// allFields returns the set of every field of obj that a write of the object itself can set.
func (t *Tracker) allFields(kind *api.Kind, obj api.Object) (*metav1.FieldsV1, error) {
	bare := kind.New()
	from, to := reflect.ValueOf(obj).Elem(), reflect.ValueOf(bare).Elem()
	for i := range from.NumField() {
		switch name := from.Type().Field(i).Name; {
		case name == "TypeMeta", name == "ObjectMeta", name == "Status" && kind.Status:
		default:
			to.Field(i).Set(from.Field(i))
		}
	}
	bare.SetLabels(obj.GetLabels())
	bare.SetAnnotations(obj.GetAnnotations())
	bare.SetOwnerReferences(obj.GetOwnerReferences())
	types, err := t.typed(kind)
	if err != nil {
		return nil, err
	}
	value, err := types.ObjectToTyped(bare, typed.AllowDuplicates)
	if err != nil {
		return nil, err
	}
	set, err := value.ToFieldSet()
	if err != nil {
		return nil, err
	}
	raw, err := set.Difference(neverOwned).ToJSON()
	return metav1.NewFieldsV1(string(raw)), err
}

// neverOwned are leaves that every value has.
var neverOwned = fieldpath.NewSet(fieldpath.MakePathOrDie("apiVersion"), fieldpath.MakePathOrDie("kind"), fieldpath.MakePathOrDie("status"),
	fieldpath.MakePathOrDie("metadata"), fieldpath.MakePathOrDie("metadata", "creationTimestamp"))

// setTimes gives entries that are new or changed the registry's time, the others their old one.
func setTimes(obj api.Object, before []metav1.ManagedFieldsEntry, now metav1.Time) {
	entries := obj.GetManagedFields()
	for i := range entries {
		entries[i].Time = &now
		for j := range before {
			if sameEntry(&entries[i], &before[j]) {
				entries[i].Time = before[j].Time
			}
		}
	}
	obj.SetManagedFields(entries)
}

// Same says whether two records say the same, times aside.
func Same(a, b []metav1.ManagedFieldsEntry) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !sameEntry(&a[i], &b[i]) {
			return false
		}
	}
	return true
}

func sameEntry(a, b *metav1.ManagedFieldsEntry) bool {
	return a.Manager == b.Manager && a.Operation == b.Operation && a.Subresource == b.Subresource && a.APIVersion == b.APIVersion &&
		(a.FieldsV1 == b.FieldsV1 || a.FieldsV1 != nil && b.FieldsV1 != nil && bytes.Equal(a.FieldsV1.GetRawBytes(), b.FieldsV1.GetRawBytes()))
}

// Part is Update for Slipway's own parts. Such a part writes the same top-level fields each time, so its record is
// made once: the whole of status, or the whole of everything else. Before the merge sees the latter it is spelled
// out, so that an apply meets the same conflicts as with a record of each field. It returns false, without a change, when others
// own fields of the object beside status: then Update is needed.
func (t *Tracker) Part(kind *api.Kind, live, updated api.Object, by By) bool {
	var entries []metav1.ManagedFieldsEntry
	if live != nil {
		entries = live.GetManagedFields()
	}
	mine := -1
	for i := range entries {
		e := &entries[i]
		switch {
		case e.Manager == by.Manager && e.Operation == metav1.ManagedFieldsOperationUpdate && e.Subresource == by.Subresource:
			mine = i
		case by.Subresource == "" && e.Subresource == "":
			return false
		}
	}
	now := by.Now
	entry := metav1.ManagedFieldsEntry{
		Manager: by.Manager, Operation: metav1.ManagedFieldsOperationUpdate, Subresource: by.Subresource,
		APIVersion: kind.GroupVersion().String(), Time: &now, FieldsType: "FieldsV1", FieldsV1: whole(kind, by.Subresource),
	}
	if live != nil && mine < 0 && by.Subresource == "" {
		return false // an object nobody tracked, or only its status: the merge knows what to do with the rest
	}
	changed := make([]metav1.ManagedFieldsEntry, len(entries), len(entries)+1)
	copy(changed, entries)
	if mine >= 0 {
		changed[mine] = entry
	} else {
		changed = append(changed, entry)
	}
	updated.SetManagedFields(changed)
	return true
}

// whole returns the field set of all top-level fields a write can set. It is shared and never changed.
func whole(kind *api.Kind, subresource string) *metav1.FieldsV1 {
	if subresource != "" {
		return statusFields
	}
	return objectFields[kind.GroupVersionKind]
}

var (
	statusFields = metav1.NewFieldsV1(`{"f:status":{}}`)
	objectFields = allObjectFields()
)

func allObjectFields() map[schema.GroupVersionKind]*metav1.FieldsV1 {
	sets := map[schema.GroupVersionKind]*metav1.FieldsV1{}
	for _, kind := range api.Kinds() {
		none := map[string]any{}
		set := map[string]any{"f:metadata": map[string]any{"f:annotations": none, "f:labels": none, "f:ownerReferences": none}}
		t := reflect.TypeOf(kind.New()).Elem()
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			if name != "" && name != "metadata" && (name != "status" || !kind.Status) {
				set["f:"+name] = none
			}
		}
		raw, err := json.Marshal(set)
		if err != nil {
			continue // maps of maps always marshal
		}
		sets[kind.GroupVersionKind] = metav1.NewFieldsV1(string(raw))
	}
	return sets
}
