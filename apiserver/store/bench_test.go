package store_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv"
	"github.com/slipway-dev/slipway/apiserver/store/kv/etcd"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
)

func backends() map[string]func(b *testing.B) kv.Backend {
	return map[string]func(b *testing.B) kv.Backend{
		"memory": func(*testing.B) kv.Backend { return memory.New() },
		"etcd": func(b *testing.B) kv.Backend {
			backend, err := etcd.Open(b.Context(), etcd.Config{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			return backend
		},
	}
}

func openBench(b *testing.B, backend kv.Backend) *store.Store {
	b.Helper()
	s, err := store.New(b.Context(), backend, api.StorageCodec{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
		if err := backend.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

// benchPod is a Pod of about 1.5 kB when stored.
func benchPod(i int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("pod-%06d", i), Labels: map[string]string{"app": "bench"},
			Annotations: map[string]string{"padding": strings.Repeat("x", 1000)}},
		Spec: corev1.PodSpec{NodeName: fmt.Sprintf("node-%d", i%1000), RestartPolicy: corev1.RestartPolicyAlways,
			Containers: []corev1.Container{{Name: "main", Image: "registry.example/app:1", Env: []corev1.EnvVar{{Name: "A", Value: "b"}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

func fill(b *testing.B, s *store.Store, n int) {
	b.Helper()
	for i := range n {
		if _, err := s.Create(b.Context(), benchPod(i), store.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreate(b *testing.B) {
	for name, open := range backends() {
		for _, flight := range []int{1, 128} {
			b.Run(fmt.Sprintf("%s/flight=%d", name, flight), func(b *testing.B) {
				s := openBench(b, open(b))
				b.ReportAllocs()
				b.ResetTimer()
				work := make(chan int)
				var group sync.WaitGroup
				for range flight {
					group.Go(func() {
						for i := range work {
							if _, err := s.Create(b.Context(), benchPod(i), store.CreateOptions{}); err != nil {
								b.Error(err)
							}
						}
					})
				}
				for i := range b.N {
					work <- i
				}
				close(work)
				group.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
			})
		}
	}
}

func BenchmarkGet(b *testing.B) {
	for name, open := range backends() {
		b.Run(name, func(b *testing.B) {
			s := openBench(b, open(b))
			fill(b, s, 5000)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Get(b.Context(), api.Pods, "default", "pod-002500"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkList5000Pods(b *testing.B) {
	s := openBench(b, memory.New())
	fill(b, s, 5000)
	for name, opts := range map[string]store.ListOptions{
		"all":  {},
		"node": {Fields: fields.OneTermEqualSelector("spec.nodeName", "node-7")},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.List(b.Context(), api.Pods, opts); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkWatchFanOut measures one write until 1,000 watchers have passed it by (each of one node, as agents do)
// or have it (each of everything).
func BenchmarkWatchFanOut(b *testing.B) {
	for name, selector := range map[string]func(i int) fields.Selector{
		"everything": func(int) fields.Selector { return nil },
		"one node": func(i int) fields.Selector {
			return fields.OneTermEqualSelector("spec.nodeName", fmt.Sprintf("node-%d", i))
		},
	} {
		b.Run(name, func(b *testing.B) {
			s := openBench(b, memory.New())
			ctx, cancel := context.WithCancel(b.Context())
			var group sync.WaitGroup
			for i := range 1000 {
				w, err := s.Watch(ctx, api.Pods, store.WatchOptions{Fields: selector(i)})
				if err != nil {
					b.Fatal(err)
				}
				group.Go(func() {
					for {
						event, err := w.Next(ctx)
						if err != nil || event.Object != nil && event.Object.GetNamespace() == "end" {
							return
						}
					}
				})
			}
			b.ResetTimer()
			fill(b, s, b.N)
			for i := range 1000 {
				last := benchPod(i)
				last.Namespace = "end"
				if _, err := s.Create(b.Context(), last, store.CreateOptions{}); err != nil {
					b.Fatal(err)
				}
			}
			group.Wait()
			cancel()
		})
	}
}
