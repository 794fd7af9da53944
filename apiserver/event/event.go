// Package event records Events about objects: what a person sees at the end of `kubectl describe`. It owns the queue
// between a part that has something to say and the store, so that saying it never waits.
//
// It must not be relied on: an event may be dropped, merged with equal ones or limited. Decisions never read Events.
package event

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// Recorder takes events. Event never blocks and never fails.
type Recorder interface {
	// Event records that something happened to obj. EventType is corev1.EventTypeNormal or EventTypeWarning; reason
	// is one CamelCase word; message is for people. Obj may be wrapped by At.
	Event(obj api.Object, eventType, reason, message string)
}

// Discard is a Recorder that drops everything.
var Discard Recorder = discard{}

type discard struct{}

func (discard) Event(api.Object, string, string, string) {}

// at is an object with a place inside it.
type at struct {
	api.Object
	path string
}

// At returns obj with a field path, for an event about a part of it.
func At(obj api.Object, path string) api.Object { return at{obj, path} }

// Container returns pod with the path of one of its containers, in the form kubectl prints:
// spec.containers{app}, spec.initContainers{setup} or spec.ephemeralContainers{debug}.
func Container(pod *corev1.Pod, name string) api.Object {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return At(pod, "spec.initContainers{"+name+"}")
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return At(pod, "spec.ephemeralContainers{"+name+"}")
		}
	}
	return At(pod, "spec.containers{"+name+"}")
}

// Reference returns the reference an event about obj carries.
func Reference(obj api.Object) (corev1.ObjectReference, error) {
	path := ""
	if a, ok := obj.(at); ok {
		obj, path = a.Object, a.path
	}
	kind, err := api.KindOf(obj)
	if err != nil {
		return corev1.ObjectReference{}, err
	}
	return corev1.ObjectReference{
		APIVersion: kind.GroupVersion().String(), Kind: kind.Kind, Namespace: obj.GetNamespace(), Name: obj.GetName(),
		UID: obj.GetUID(), ResourceVersion: obj.GetResourceVersion(), FieldPath: path,
	}, nil
}

// identity is what makes two events equal: everything but times, count and the object's version.
type identity struct {
	component                  string
	object                     corev1.ObjectReference
	eventType, reason, message string
}

const maxMessage = 1024 // bytes, as in the events.k8s.io API

func newIdentity(component string, ref corev1.ObjectReference, eventType, reason, message string) identity {
	ref.ResourceVersion = ""
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage-3], "") + "..."
	}
	return identity{component, ref, eventType, reason, message}
}

// namespace is where the Event lives: beside its object, or in default for objects without a namespace.
func (id identity) namespace() string {
	if id.object.Namespace == "" {
		return metav1.NamespaceDefault
	}
	return id.object.Namespace
}

// name returns a name for a new Event. Names of one object's Events sort by stamp, in microseconds: so they are listed
// in the order in which they happened, which their times, cut to seconds, do not tell.
func (id identity) name(stamp int64) string {
	const suffix = 17
	name := id.object.Name
	if len(name) > 253-suffix {
		name = strings.TrimRight(name[:253-suffix], ".-")
	}
	return fmt.Sprintf("%s.%016x", name, stamp)
}

// identityOf returns what makes a stored Event equal to others.
func identityOf(ev *corev1.Event) identity {
	return newIdentity(ev.Source.Component, ev.InvolvedObject, ev.Type, ev.Reason, ev.Message)
}

// fresh returns the Event for id that happened n times, all at t.
func (id identity) fresh(name, objectVersion string, n int32, t metav1.Time) *corev1.Event {
	ref := id.object
	ref.ResourceVersion = objectVersion
	return &corev1.Event{
		TypeMeta:       metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:     metav1.ObjectMeta{Namespace: id.namespace(), Name: name},
		InvolvedObject: ref, Type: id.eventType, Reason: id.reason, Message: id.message,
		Source: corev1.EventSource{Component: id.component}, ReportingController: id.component,
		FirstTimestamp: t, LastTimestamp: t, Count: n,
	}
}

// again returns old after n more at t.
func (id identity) again(old *corev1.Event, objectVersion string, n int32, t metav1.Time) *corev1.Event {
	ev := old.DeepCopy()
	ev.Count += n
	ev.LastTimestamp = t
	ev.InvolvedObject.ResourceVersion = objectVersion
	return ev
}
