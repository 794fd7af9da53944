package recipe

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/network"
	"github.com/slipway-dev/slipway/nodeagent/volume/downward"
)

func TestExpand(t *testing.T) {
	vars := map[string]string{"A": "1", "B": "$(A)", "EMPTY": ""}
	find := func(n string) (string, bool) { v, ok := vars[n]; return v, ok }
	for in, want := range map[string]string{
		"": "", "plain": "plain", "$(A)": "1", "x$(A)y$(A)": "x1y1", "$(B)": "$(A)", "$(NONE)": "$(NONE)", "$(EMPTY)": "", "$$(A)": "$(A)",
		"$$$(A)": "$1", "$$$$": "$$", "$": "$", "a$": "a$", "$A": "$A", "$(A": "$(A", "$()": "$()", "$($(A))": "$($(A))", "$$": "$", "100%$": "100%$",
	} {
		if got := Expand(in, find); got != want {
			t.Errorf("Expand(%q) is %q, want %q", in, got, want)
		}
	}
}

func pod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", UID: "u1"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main"}}}}
}

func input(c corev1.Container) Input {
	return Input{Self: downward.Self{Pod: pod(), IP: "10.244.0.7"}, Container: c,
		Objects: Objects{
			ConfigMaps: map[string]*corev1.ConfigMap{"cm": {Data: map[string]string{"K": "from-cm", "L": "l"}}},
			Secrets:    map[string]*corev1.Secret{"s": {Data: map[string][]byte{"P": []byte("hush")}}},
		}}
}

func ref(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }

func TestEnv(t *testing.T) {
	yes := true
	key := func(name, key string, optional *bool) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref(name), Key: key, Optional: optional}}
	}
	cases := []struct {
		name string
		c    corev1.Container
		want []string
		err  string
	}{
		{"values expand what came before only", corev1.Container{Env: []corev1.EnvVar{{Name: "A", Value: "$(B)"}, {Name: "B", Value: "b"}, {Name: "C", Value: "$(B)$(A)"}}},
			[]string{"A=$(B)", "B=b", "C=b$(B)"}, ""},
		{"env wins over envFrom", corev1.Container{EnvFrom: []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref("cm")}},
			{Prefix: "S_", SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref("s")}}}, Env: []corev1.EnvVar{{Name: "L", Value: "own $(K)"}}},
			[]string{"K=from-cm", "L=own from-cm", "S_P=hush"}, ""},
		{"key and field", corev1.Container{Env: []corev1.EnvVar{{Name: "K", ValueFrom: key("cm", "K", nil)},
			{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}}}}, []string{"IP=10.244.0.7", "K=from-cm"}, ""},
		{"missing key", corev1.Container{Env: []corev1.EnvVar{{Name: "K", ValueFrom: key("cm", "none", nil)}}}, nil, "couldn't find key none in ConfigMap shop/cm"},
		{"missing object", corev1.Container{Env: []corev1.EnvVar{{Name: "K", ValueFrom: key("none", "k", nil)}}}, nil, `configmap "none" not found`},
		{"missing but optional", corev1.Container{Env: []corev1.EnvVar{{Name: "K", ValueFrom: key("none", "k", &yes)}, {Name: "L", ValueFrom: key("cm", "none", &yes)}}}, []string{}, ""},
		{"missing source", corev1.Container{EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref("none")}}}}, nil, `secret "none" not found`},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Env(input(tc.c))
			if (err == nil) != (tc.err == "") || err != nil && err.Error() != tc.err {
				t.Fatalf("error %v, want %q", err, tc.err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("env (-want +got):\n%s", diff)
			}
		})
	}
}

func TestServiceEnv(t *testing.T) {
	in := input(corev1.Container{})
	in.Cluster = Cluster{APIHost: "10.96.0.1", APIPort: 443}
	in.Services = []*corev1.Service{
		{ObjectMeta: metav1.ObjectMeta{Name: "my-db", Namespace: "shop"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9", Ports: []corev1.ServicePort{{Name: "pg", Port: 5432, Protocol: "TCP"}}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "headless", Namespace: "shop"}, Spec: corev1.ServiceSpec{ClusterIP: "None", Ports: []corev1.ServicePort{{Port: 1}}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "other", Namespace: "else"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.8", Ports: []corev1.ServicePort{{Port: 1}}}},
	}
	got, err := Env(in)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"KUBERNETES_PORT=tcp://10.96.0.1:443", "KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443", "KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1", "KUBERNETES_PORT_443_TCP_PORT=443",
		"KUBERNETES_PORT_443_TCP_PROTO=tcp", "KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT=443", "KUBERNETES_SERVICE_PORT_HTTPS=443",
		"MY_DB_PORT=tcp://10.96.0.9:5432", "MY_DB_PORT_5432_TCP=tcp://10.96.0.9:5432", "MY_DB_PORT_5432_TCP_ADDR=10.96.0.9", "MY_DB_PORT_5432_TCP_PORT=5432",
		"MY_DB_PORT_5432_TCP_PROTO=tcp", "MY_DB_SERVICE_HOST=10.96.0.9", "MY_DB_SERVICE_PORT=5432", "MY_DB_SERVICE_PORT_PG=5432",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("env (-want +got):\n%s", diff)
	}
	no := false
	in.Self.Pod.Spec.EnableServiceLinks = &no
	if got, _ := Env(in); len(got) != 8 || strings.HasPrefix(got[7], "MY") {
		t.Errorf("without links: %v", got)
	}
}

func quantities(cpu, memory string) corev1.ResourceList {
	l := corev1.ResourceList{}
	if cpu != "" {
		l[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		l[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	return l
}

func TestResourcesAndCgroup(t *testing.T) {
	cases := []struct {
		name   string
		r      corev1.ResourceRequirements
		want   engine.Resources
		cgroup string
	}{
		{"nothing asked for", corev1.ResourceRequirements{}, engine.Resources{CPUShares: 2, OOMScoreAdj: 1000}, "besteffort/podu1"},
		{"requests", corev1.ResourceRequirements{Requests: quantities("250m", "1Gi")}, engine.Resources{CPUShares: 256, OOMScoreAdj: 750}, "burstable/podu1"},
		{"limits", corev1.ResourceRequirements{Limits: quantities("500m", "64Mi"), Requests: quantities("500m", "64Mi")},
			engine.Resources{CPUShares: 512, CPUPeriod: 100000, CPUQuota: 50000, MemoryBytes: 64 << 20, OOMScoreAdj: -997}, "guaranteed/podu1"},
		{"limit of cpu only", corev1.ResourceRequirements{Limits: quantities("1m", "")}, engine.Resources{CPUShares: 2, CPUPeriod: 100000, CPUQuota: 1000, OOMScoreAdj: 999}, "burstable/podu1"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			p := pod()
			p.Spec.Containers[0].Resources = tc.r
			if diff := cmp.Diff(tc.want, resources(p, p.Spec.Containers[0], 4<<30)); diff != "" {
				t.Errorf("resources (-want +got):\n%s", diff)
			}
			if got := CgroupOf(p); got != tc.cgroup {
				t.Errorf("cgroup %s, want %s", got, tc.cgroup)
			}
		})
	}
}

func TestSecurityMerges(t *testing.T) {
	yes, no, one, two, group := true, false, int64(1), int64(2), int64(7)
	p := pod()
	p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &one, RunAsNonRoot: &yes, FSGroup: &group, SupplementalGroups: []int64{5},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
	c := corev1.Container{SecurityContext: &corev1.SecurityContext{RunAsUser: &two, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
		Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"CAP_NET_ADMIN"}, Drop: []corev1.Capability{"all"}}}}
	want := engine.Security{UID: &two, Groups: []int64{5, 7}, NonRoot: true, ReadOnlyRoot: true, NoNewPrivileges: true, SeccompDefault: true,
		AddCapabilities: []string{"NET_ADMIN"}, DropCapabilities: []string{"ALL"}}
	if diff := cmp.Diff(want, security(p, c)); diff != "" {
		t.Errorf("security (-want +got):\n%s", diff)
	}
}

func TestContainer(t *testing.T) {
	in := input(corev1.Container{Name: "main", Command: []string{"run", "$(A)"}, Args: []string{"$$(A)"}, Env: []corev1.EnvVar{{Name: "A", Value: "x"}}, WorkingDir: "/w"})
	in.Cgroup, in.ID, in.Image, in.Sandbox = "/slipway", "id", "app:1", network.Sandbox{NetNS: "/n", IPC: "/i", UTS: "/u"}
	in.Mounts = []engine.Mount{{Source: "/v", Target: "/etc/hosts"}, {Source: "/v2", Target: "/a/b"}, {Source: "/v1", Target: "/a"}}
	in.Files = []engine.Mount{{Source: "/h", Target: "/etc/hosts"}, {Source: "/r", Target: "/etc/resolv.conf"}}
	got, err := Container(in)
	if err != nil {
		t.Fatal(err)
	}
	want := engine.Container{ID: "id", Image: "app:1", Group: "u1", Command: []string{"run", "x"}, Args: []string{"$(A)"}, Env: []string{"A=x"}, WorkDir: "/w",
		Namespaces: engine.Namespaces{Network: "/n", IPC: "/i", UTS: "/u"}, Cgroup: "/slipway/besteffort/podu1", Resources: engine.Resources{CPUShares: 2, OOMScoreAdj: 1000},
		Mounts: []engine.Mount{{Source: "/v1", Target: "/a"}, {Source: "/v2", Target: "/a/b"}, {Source: "/v", Target: "/etc/hosts"}, {Source: "/r", Target: "/etc/resolv.conf"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("container (-want +got):\n%s", diff)
	}
}

func TestResolvConf(t *testing.T) {
	node := []byte("# node\nsearch corp.example .\nnameserver 192.0.2.53\noptions edns0\n")
	cluster := Cluster{Domain: "cluster.local", DNS: "10.96.0.10"}
	two := "2"
	cases := []struct {
		name   string
		change func(*corev1.PodSpec)
		want   string
	}{
		{"cluster first", func(*corev1.PodSpec) {}, "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example\nnameserver 10.96.0.10\noptions ndots:5\n"},
		{"the node's", func(s *corev1.PodSpec) { s.DNSPolicy = "Default" }, "search corp.example\nnameserver 192.0.2.53\noptions edns0\n"},
		{"host network", func(s *corev1.PodSpec) { s.HostNetwork, s.DNSPolicy = true, "ClusterFirst" }, "search corp.example\nnameserver 192.0.2.53\noptions edns0\n"},
		{"none but its own", func(s *corev1.PodSpec) {
			s.DNSPolicy, s.DNSConfig = "None", &corev1.PodDNSConfig{Nameservers: []string{"1.1.1.1"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &two}}}
		}, "nameserver 1.1.1.1\noptions ndots:2\n"},
		{"own options win", func(s *corev1.PodSpec) {
			s.DNSConfig = &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &two}}}
		}, "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example\nnameserver 10.96.0.10\noptions ndots:2\n"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			p := pod()
			tc.change(&p.Spec)
			if diff := cmp.Diff(tc.want, string(ResolvConf(p, cluster, node))); diff != "" {
				t.Errorf("resolv.conf (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHosts(t *testing.T) {
	p := pod()
	p.Spec.Subdomain, p.Spec.HostAliases = "sub", []corev1.HostAlias{{IP: "192.0.2.9", Hostnames: []string{"a", "b"}}}
	got := string(Hosts(p, "10.244.0.7", "cluster.local", nil))
	if want := "10.244.0.7\tweb.sub.shop.svc.cluster.local\tweb\n192.0.2.9\ta\tb\n"; !strings.HasSuffix(got, want) {
		t.Errorf("hosts end %q, want %q", got, want)
	}
	p.Spec.HostNetwork = true
	if got := string(Hosts(p, "", "cluster.local", []byte("127.0.0.1 node"))); got != "127.0.0.1 node\n192.0.2.9\ta\tb\n" {
		t.Errorf("with host network: %q", got)
	}
}
