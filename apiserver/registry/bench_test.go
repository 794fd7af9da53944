package registry

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
)

// benchFixture is newFixture without the check for mutations, which costs more than what is measured.
func benchFixture(b *testing.B) *fixture {
	b.Helper()
	s, err := store.New(b.Context(), memory.New(), api.StorageCodec{})
	if err != nil {
		b.Fatal(err)
	}
	return newFixture(b, func(c *Config) { c.Store = s })
}

func BenchmarkCreatePodByController(b *testing.B) {
	f := benchFixture(b)
	controller := f.As(Controller("replicaset"))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := controller.Create(f.ctx, pod(fmt.Sprintf("p%d", i)), store.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBind(b *testing.B) {
	f := benchFixture(b)
	scheduler := f.As(Scheduler())
	pods := make([]*corev1.Pod, 1000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%len(pods) == 0 {
			b.StopTimer()
			for j := range pods {
				pods[j] = f.create(b, pod(fmt.Sprintf("p%d-%d", i, j))).(*corev1.Pod)
			}
			b.StartTimer()
		}
		if _, err := scheduler.Create(f.ctx, binding(pods[i%len(pods)], "n"), store.CreateOptions{Subresource: "binding"}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUpdatePodStatusByNode(b *testing.B) {
	f := benchFixture(b)
	p := f.running(b, "a")
	node := f.As(Node("node-1"))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		next := p.DeepCopy()
		next.Status.Message = fmt.Sprint(i)
		obj, err := node.Update(f.ctx, next, store.UpdateOptions{Subresource: "status"})
		if err != nil {
			b.Fatal(err)
		}
		p = obj.(*corev1.Pod)
	}
}

func BenchmarkApplyUnchanged(b *testing.B) {
	f := benchFixture(b)
	f.apply(b, api.Deployments, "web", apply(webManifest, api.ManagerGit))
	b.ReportAllocs()
	for b.Loop() {
		f.apply(b, api.Deployments, "web", apply(webManifest, api.ManagerGit))
	}
}

func BenchmarkApplyNew(b *testing.B) {
	f := benchFixture(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		name := fmt.Sprintf("c%d", i)
		f.apply(b, api.ConfigMaps, name, apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "+name+"}\ndata: {a: b}\n", api.ManagerGit))
	}
}
