//go:build vm

package vm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// backAgain waits until the Pods are as after a reboot: the same Pods, their containers made anew once. Then it looks at
// what keeper found in its volumes: hostPath and emptyDir as it left them, memory empty.
func (m *Machine) backAgain(before map[string]Pod) {
	m.t.Helper()
	var after map[string]Pod
	m.Eventually("the Pods of before, with new containers", func() (err error) {
		if after, err = m.Pods("vm"); err != nil {
			return err
		}
		if len(after) != len(before) {
			return fmt.Errorf("there were %d and are %d", len(before), len(after))
		}
		for name, was := range before {
			is := after[name]
			if !is.Ready || is.UID != was.UID || is.Container == was.Container || is.Restarts != was.Restarts+1 {
				return fmt.Errorf("%+v became %+v", was, is)
			}
		}
		return nil
	})
	want := fmt.Sprintf("/keep/n %d\n/disk/n %[1]d\n/memory/n 0\n", after["keeper"].Restarts)
	if log := m.Kubectl("-n", "vm", "logs", "keeper"); !strings.HasPrefix(log, want) {
		m.t.Errorf("keeper found\n%s, want\n%s", log, want)
	}
}

func reboot(t *testing.T, m *Machine) {
	before := m.allReady()
	last := strings.TrimSpace(m.Kubectl("-n", "vm", "logs", "talker", "--tail=1"))
	m.Reboot()
	m.backAgain(before)
	if log := m.Kubectl("-n", "vm", "logs", "talker", "--previous"); !strings.Contains(log, "line 0\n") || !strings.Contains(log, last+"\n") {
		t.Errorf("of talker's log before the reboot, line 0 or %q is missing", last)
	}
	if log := m.Kubectl("-n", "vm", "logs", "talker"); !strings.HasPrefix(log, "line 0\n") {
		t.Errorf("talker's new log begins with %.20q", log)
	}
}

// cuts is how often the power is cut.
const cuts = 3

// powerCuts ends the machine while four writers write ConfigMaps. What they were told is written must be there.
func powerCuts(t *testing.T, m *Machine) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var written acknowledged
	for cut := range cuts {
		before := m.allReady()
		m.writeUntil(cut, 20+random.IntN(200), &written)
		m.Start()
		m.backAgain(before)
		m.compare(t, &written)
		t.Logf("cut %d: %d writes acknowledged so far", cut+1, len(written.revisions))
	}
}

// acknowledged are the writes that the API has answered, with their revisions.
type acknowledged struct {
	mu        sync.Mutex
	revisions map[string]int64
	newest    int64
}

func (a *acknowledged) add(name, version string) (count int, err error) {
	revision, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		return 0, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.revisions == nil {
		a.revisions = map[string]int64{}
	}
	a.revisions[name] = revision
	a.newest = max(a.newest, revision)
	return len(a.revisions), nil
}

// writeUntil writes with four writers and cuts the power when so many more are acknowledged, in the middle of others.
func (m *Machine) writeUntil(cut, count int, written *acknowledged) {
	m.t.Helper()
	ctx, stop := context.WithCancel(m.t.Context())
	defer stop()
	target := len(written.revisions) + count
	reached := make(chan struct{})
	var once sync.Once
	var writers sync.WaitGroup
	for writer := range 4 {
		writers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				name := fmt.Sprintf("write-%d-%d-%d", cut, writer, n)
				object := corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Name: name},
					Data: map[string]string{"text": strings.Repeat(name+" ", 50)}}
				var answer corev1.ConfigMap
				if err := m.Do(ctx, http.MethodPost, "/api/v1/namespaces/default/configmaps", object, &answer); err != nil {
					continue // not told that it is written
				}
				if total, err := written.add(name, answer.ResourceVersion); err == nil && total >= target {
					once.Do(func() { close(reached) })
				}
			}
		})
	}
	select {
	case <-reached:
	case <-m.t.Context().Done():
	}
	m.PowerCut()
	stop()
	writers.Wait()
}

// compare looks for every acknowledged write at its revision, and for revisions that went backwards.
func (m *Machine) compare(t *testing.T, written *acknowledged) {
	t.Helper()
	var list corev1.ConfigMapList
	if err := m.Do(t.Context(), http.MethodGet, "/api/v1/namespaces/default/configmaps", nil, &list); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, c := range list.Items {
		found[c.Name] = c.ResourceVersion
	}
	var lost []error
	for name, revision := range written.revisions {
		if found[name] != strconv.FormatInt(revision, 10) {
			lost = append(lost, fmt.Errorf("%s was written at %d and is at %q", name, revision, found[name]))
		}
	}
	if err := errors.Join(lost...); err != nil {
		t.Errorf("%d acknowledged writes are lost:\n%v", len(lost), err)
	}
	if now, err := strconv.ParseInt(list.ResourceVersion, 10, 64); err != nil || now < written.newest {
		t.Errorf("the store is at %s, and was at %d", list.ResourceVersion, written.newest)
	}
}
