package registry

import (
	"reflect"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// wholeSeconds cuts every time in obj to the precision that is stored and sent, seconds or, in a MicroTime,
// microseconds, so that an object reads the same before and after it has been through bytes. Parts that need no
// cut are not written to.
func wholeSeconds(obj api.Object) {
	v := reflect.ValueOf(obj).Elem()
	if cut := cutters[v.Type()]; cut != nil {
		cut(v)
	}
}

// cutter visits the times below a value of one type.
type cutter func(reflect.Value)

// cutters has a cutter per type, nil for types without times, so that reflection looks at few fields.
var cutters = newCutters()

var (
	timeType      = reflect.TypeFor[metav1.Time]()
	microTimeType = reflect.TypeFor[metav1.MicroTime]()
)

type cutterSet map[reflect.Type]cutter

func newCutters() cutterSet {
	set := cutterSet{}
	for _, kind := range api.Kinds() {
		set.of(reflect.TypeOf(kind.New()).Elem())
	}
	return set
}

// of returns the type's cutter. No type of the table contains itself.
func (set cutterSet) of(t reflect.Type) cutter {
	if known, ok := set[t]; ok {
		return known
	}
	cut := set.make(t)
	set[t] = cut
	return cut
}

func (set cutterSet) make(t reflect.Type) cutter {
	switch t {
	case timeType:
		return func(v reflect.Value) {
			if at := v.Addr().Interface().(*metav1.Time); at.Nanosecond() != 0 {
				at.Time = at.Truncate(time.Second)
			}
		}
	case microTimeType:
		return func(v reflect.Value) {
			if at := v.Addr().Interface().(*metav1.MicroTime); at.Nanosecond()%1000 != 0 {
				at.Time = at.Truncate(time.Microsecond)
			}
		}
	}
	switch t.Kind() {
	case reflect.Pointer:
		if inner := set.of(t.Elem()); inner != nil {
			return func(v reflect.Value) {
				if !v.IsNil() {
					inner(v.Elem())
				}
			}
		}
	case reflect.Slice:
		if inner := set.of(t.Elem()); inner != nil {
			return func(v reflect.Value) {
				for i := range v.Len() {
					inner(v.Index(i))
				}
			}
		}
	case reflect.Struct:
		return set.makeStruct(t)
	}
	return nil
}

func (set cutterSet) makeStruct(t reflect.Type) cutter {
	type field struct {
		index int
		cut   cutter
	}
	var with []field
	for i := range t.NumField() {
		// Types of other packages that hold no API times, such as resource.Quantity, have unexported fields.
		if f := t.Field(i); f.IsExported() {
			if cut := set.of(f.Type); cut != nil {
				with = append(with, field{i, cut})
			}
		}
	}
	if len(with) == 0 {
		return nil
	}
	return func(v reflect.Value) {
		for _, f := range with {
			f.cut(v.Field(f.index))
		}
	}
}
