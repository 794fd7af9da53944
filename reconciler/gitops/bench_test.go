package gitops

import (
	"fmt"
	"testing"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
)

const benchApps = 1000 // of 4 objects each

// apps returns a tree of n apps, each a ServiceAccount, a ConfigMap, a Service and a Deployment without replicas.
func apps(n int, value string) files {
	f := files{"ns.yaml": namespaceFile("shop")}
	for i := range n {
		name := fmt.Sprintf("app%04d", i)
		f[name+".yaml"] = fmt.Sprintf("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: %[1]s, namespace: shop}\n---\n"+
			"apiVersion: v1\nkind: Service\nmetadata: {name: %[1]s, namespace: shop}\nspec:\n  clusterIP: None\n  selector: {app: %[1]s}\n  ports: [{port: 80, name: http}]\n---\n", name) +
			configFile(name, value) + "---\n" + deploymentFile(name, "nginx:1")
	}
	return f
}

func (r *rig) applied(revision string) {
	r.await("everything applied", func(p Progress) bool {
		return p.Step == StepWorkload && p.Revision.ID == revision || p.Step == StepSettled && p.Revision.ID == revision
	})
}

// BenchmarkApply4000 measures one commit of 1,000 apps of 4 objects, from the snapshot until all is stored.
func BenchmarkApply4000(b *testing.B) {
	backends := map[string]func(testing.TB) kv.Backend{
		"memory": func(testing.TB) kv.Backend { return memory.New() },
		"etcd":   etcdBackend,
	}
	for _, name := range []string{"memory", "etcd"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				r := newRig(b, backends[name](b))
				stop := r.start(Config{})
				f := apps(benchApps, "1")
				b.StartTimer()
				r.applied(r.push(f))
				b.StopTimer()
				stop()
				b.StartTimer()
			}
			b.ReportMetric(float64(b.N)*benchApps*4/b.Elapsed().Seconds(), "objects/s")
		})
	}
}

// BenchmarkOneOf4000 measures a commit that changes one of 4,000 objects.
func BenchmarkOneOf4000(b *testing.B) {
	r := newRig(b, memory.New())
	r.start(Config{})
	f := apps(benchApps, "1")
	r.applied(r.push(f))
	i := 0
	for b.Loop() {
		i++
		f["app0500.yaml"] = configFile("app0500", fmt.Sprint(i))
		f["extra.yaml"] = configFile("extra", fmt.Sprint(i))
		rev := r.push(f)
		r.await("applied", func(p Progress) bool {
			return p.Step == StepDone && p.Action.Ref.Name == "extra" && p.Revision.ID == rev
		})
	}
}
