// Package storetest is the conformance suite of store.Client: what every implementation, raw or behind the
// registry or the wire, must do. It uses valid objects only and does not depend on who fills in uid, defaults and
// the like.
package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
)

// Run runs the suite. open returns an empty store's client, closed by the test's cleanup.
func Run(t *testing.T, open func(t *testing.T) store.Client) {
	rows := []struct {
		name string
		run  func(*testing.T, suite)
	}{
		{"CreateThenGet", createThenGet},
		{"CreateRefusesWhatExists", createRefusesWhatExists},
		{"GetOfNothingIsNotFound", getOfNothing},
		{"UpdateComparesVersions", updateComparesVersions},
		{"UpdateWithoutVersionWins", updateWithoutVersion},
		{"UpdateThatChangesNothingMakesNoRevision", updateOfNothing},
		{"UpdateChecksUID", updateChecksUID},
		{"StatusAndSpecAreWrittenApart", statusApart},
		{"PatchJSON", patchJSON},
		{"PatchMerge", patchMerge},
		{"PatchStrategic", patchStrategic},
		{"PatchesDoNotLoseEachOther", patchesConcurrent},
		{"DeleteReturnsTheLastState", deleteReturnsLast},
		{"DeleteChecksPreconditions", deletePreconditions},
		{"DryRunStoresNothing", dryRun},
		{"ArgumentsStayTheCallers", argumentsStay},
		{"ReadersShareObjects", readersShare},
		{"ListIsSortedAndSelects", listSelects},
		{"ListPagesComeFromOneState", listPages},
		{"ListRefusesUnknownFields", listUnknownField},
		{"ListOfThePastAndTheFuture", listRevisions},
		{"WritesAreReadAtOnce", readYourWrites},
		{"WatchSeesEachEventOnce", watchOnce},
		{"WatchResumesAfterEveryEvent", watchResumes},
		{"WatchStartsWithPresentObjects", watchInitial},
		{"WatchFollowsSelectors", watchSelectors},
		{"WatchFollowsFieldSelectors", watchFields},
		{"WatchOfANameSeesAllOfIt", watchName},
		{"WatchFromTheFutureIsRefused", watchFuture},
		{"WatchFromBeforeTheStoreIsExpired", watchPast},
		{"WatchTooFarBehindIsExpired", watchBehind},
		{"WatchBookmarksWhatDidNotMatch", watchBookmarks},
		{"WatchEndsOnClose", watchClose},
		{"WatchEndsWithItsContext", watchContext},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s := suite{Client: open(t), ctx: t.Context()}
			s.namespaces(t, "red", "blue", "red-2")
			row.run(t, s)
		})
	}
}

// suite is a client with what the rows need around it.
type suite struct {
	store.Client
	ctx context.Context
}

// namespaces creates namespaces with the default ServiceAccount that Pods need.
func (s suite) namespaces(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		s.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		_, err := s.Create(s.ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "default"}}, store.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
}

func (s suite) create(t *testing.T, obj api.Object) api.Object {
	t.Helper()
	created, err := s.Create(s.ctx, obj, store.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return created
}

// set writes a ConfigMap, whether it is there or not, and returns its revision.
func (s suite) set(t *testing.T, m *corev1.ConfigMap) api.Object {
	t.Helper()
	written, err := s.Update(s.ctx, m, store.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return s.create(t, m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return written
}

func (s suite) delete(t *testing.T, kind *api.Kind, namespace, name string) api.Object {
	t.Helper()
	deleted, err := s.Delete(s.ctx, kind, namespace, name, store.DeleteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return deleted
}

func (s suite) list(t *testing.T, kind *api.Kind, opts store.ListOptions) store.List {
	t.Helper()
	list, err := s.List(s.ctx, kind, opts)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func (s suite) watch(t *testing.T, kind *api.Kind, opts store.WatchOptions) store.Watch {
	t.Helper()
	w, err := s.Watch(s.ctx, kind, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// lost is how long an event may take before it counts as lost.
const lost = 30 * time.Second

// next returns the next event that is not a bookmark.
func (s suite) next(t *testing.T, w store.Watch) store.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, lost)
	defer cancel()
	for {
		event, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if event.Type != store.Bookmark {
			return event
		}
	}
}

// configMap returns a ConfigMap with one value and the labels given as key, value, key, value.
func configMap(namespace, name, value string, labels ...string) *corev1.ConfigMap {
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string]string{"value": value}}
	for i := 0; i+1 < len(labels); i += 2 {
		metav1.SetMetaDataLabel(&m.ObjectMeta, labels[i], labels[i+1])
	}
	return m
}

func pod(namespace, name string) *corev1.Pod {
	automount := false
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: &automount,
			Containers:                   []corev1.Container{{Name: "main", Image: "registry.example/app:1"}},
		},
	}
}

// what describes an event in one line: what is compared when a row fails.
func what(e store.Event) string {
	if e.Object == nil {
		return string(e.Type)
	}
	line := fmt.Sprintf("%s %s/%s", e.Type, e.Object.GetNamespace(), e.Object.GetName())
	if m, ok := e.Object.(*corev1.ConfigMap); ok {
		line += " " + m.Data["value"]
	}
	return line
}
