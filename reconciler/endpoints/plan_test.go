//nolint:staticcheck // Endpoints are deprecated, but clients still read and write them
package endpoints

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func testService(changes ...func(*corev1.Service)) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "service", Labels: map[string]string{"team": "a"}},
		Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9", Selector: map[string]string{"app": "web"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("http"), Protocol: corev1.ProtocolTCP}}},
	}
	for _, c := range changes {
		c(svc)
	}
	return svc
}

func headless(svc *corev1.Service)   { svc.Spec.ClusterIP = corev1.ClusterIPNone }
func portless(svc *corev1.Service)   { svc.Spec.Ports = nil }
func publishing(svc *corev1.Service) { svc.Spec.PublishNotReadyAddresses = true }
func external(svc *corev1.Service)   { svc.Spec.Type = corev1.ServiceTypeExternalName }
func numbered(svc *corev1.Service) {
	svc.Spec.Ports = []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}, {Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}}
}

func testPod(n int, changes ...func(*corev1.Pod)) *corev1.Pod {
	ip := fmt.Sprintf("10.244.%d.%d", n/250, n%250+1)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("p%03d", n), UID: types.UID(fmt.Sprint("uid", n))},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Ports: []corev1.ContainerPort{
			{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolUDP}, {Name: "http", ContainerPort: 8081, Protocol: corev1.ProtocolTCP}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}, {IP: "fd00::1"}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
	for _, c := range changes {
		c(pod)
	}
	return pod
}

func unready(pod *corev1.Pod) { pod.Status.Conditions = nil }
func deleting(pod *corev1.Pod) {
	pod.DeletionTimestamp = &metav1.Time{Time: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)}
}
func ended(pod *corev1.Pod)     { pod.Status.Phase = corev1.PodFailed }
func homeless(pod *corev1.Pod)  { pod.Status.PodIP, pod.Status.PodIPs = "", nil }
func onlySix(pod *corev1.Pod)   { pod.Status.PodIP, pod.Status.PodIPs = "fd00::1", nil }
func otherPort(pod *corev1.Pod) { pod.Spec.Containers[0].Ports[1].ContainerPort = 9090 }
func noPort(pod *corev1.Pod)    { pod.Spec.Containers[0].Ports = nil }
func named(pod *corev1.Pod)     { pod.Spec.Hostname, pod.Spec.Subdomain = "first", "web" }
func elsewhere(pod *corev1.Pod) { pod.Spec.Hostname, pod.Spec.Subdomain = "first", "other" }

// perform is the model's apply.
func perform(o observed, actions []Action, made *int) observed {
	for _, action := range actions {
		switch a := action.(type) {
		case CreateEndpoints:
			o.Endpoints = a.Endpoints
		case UpdateEndpoints:
			o.Endpoints = a.Endpoints
		case DeleteEndpoints:
			o.Endpoints = nil
		case CreateSlice:
			*made++
			s := a.Slice.DeepCopy()
			s.Name = fmt.Sprintf("%s%03d", s.GenerateName, *made)
			o.Slices = append(slices.Clone(o.Slices), s)
		case UpdateSlice:
			o.Slices = slices.Clone(o.Slices)
			i := slices.IndexFunc(o.Slices, func(s *discoveryv1.EndpointSlice) bool { return s.Name == a.Slice.Name })
			o.Slices[i] = a.Slice
		case DeleteSlice:
			o.Slices = slices.DeleteFunc(slices.Clone(o.Slices), func(s *discoveryv1.EndpointSlice) bool { return s.Name == a.Slice.Name })
		}
	}
	return o
}

// show prints what is published, one line for each address.
func show(o observed) string {
	var lines []string
	if o.Endpoints != nil {
		for _, s := range o.Endpoints.Subsets {
			for _, p := range s.Ports {
				lines = append(lines, fmt.Sprintf("endpoints port %q %d %s", p.Name, p.Port, p.Protocol))
			}
			for _, a := range s.Addresses {
				lines = append(lines, "endpoints ready "+a.IP+" "+a.TargetRef.Name+" "+a.Hostname)
			}
			for _, a := range s.NotReadyAddresses {
				lines = append(lines, "endpoints not ready "+a.IP+" "+a.TargetRef.Name)
			}
		}
	}
	for _, s := range byName(o.Slices) {
		line := "slice"
		for _, p := range s.Ports {
			line += fmt.Sprintf(" port %q %d %s", *p.Name, *p.Port, *p.Protocol)
		}
		lines = append(lines, line)
		for _, e := range s.Endpoints {
			state := fmt.Sprintf("  %s", e.Addresses[0])
			if e.TargetRef != nil {
				state += " " + e.TargetRef.Name
			}
			if e.NodeName != nil {
				state += " on " + *e.NodeName
			}
			if *e.Conditions.Ready {
				state += " ready"
			}
			if *e.Conditions.Serving {
				state += " serving"
			}
			if *e.Conditions.Terminating {
				state += " terminating"
			}
			if e.Hostname != nil {
				state += " as " + *e.Hostname
			}
			lines = append(lines, state)
		}
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

func TestPlanPublishes(t *testing.T) {
	tests := []struct {
		name string
		svc  *corev1.Service
		pods []*corev1.Pod
		want string
	}{
		{"nothing as an empty slice", testService(), nil, "slice"},
		{"a ready pod by its named port", testService(), []*corev1.Pod{testPod(1)}, `
endpoints port "http" 8081 TCP
endpoints ready 10.244.0.2 p001
slice port "http" 8081 TCP
  10.244.0.2 p001 on n1 ready serving`},
		{"unready and ending pods", testService(), []*corev1.Pod{testPod(1, unready), testPod(2, deleting), testPod(3, deleting, unready)}, `
endpoints port "http" 8081 TCP
endpoints not ready 10.244.0.2 p001
slice port "http" 8081 TCP
  10.244.0.2 p001 on n1
  10.244.0.3 p002 on n1 serving terminating
  10.244.0.4 p003 on n1 terminating`},
		{"unready pods where asked to", testService(publishing), []*corev1.Pod{testPod(1, unready), testPod(2, deleting)}, `
endpoints port "http" 8081 TCP
endpoints ready 10.244.0.2 p001
endpoints ready 10.244.0.3 p002
slice port "http" 8081 TCP
  10.244.0.2 p001 on n1 ready
  10.244.0.3 p002 on n1 ready serving terminating`},
		{"no pod that ended or has no address", testService(), []*corev1.Pod{testPod(1, ended), testPod(2, homeless), testPod(3, onlySix), testPod(4, noPort)}, "slice"},
		{"pods with other numbers for one name apart", testService(), []*corev1.Pod{testPod(1), testPod(2, otherPort)}, `
endpoints port "http" 8081 TCP
endpoints ready 10.244.0.2 p001
endpoints port "http" 9090 TCP
endpoints ready 10.244.0.3 p002
slice port "http" 8081 TCP
  10.244.0.2 p001 on n1 ready serving
slice port "http" 9090 TCP
  10.244.0.3 p002 on n1 ready serving`},
		{"numbers, and the service's own where none is given", testService(numbered), []*corev1.Pod{testPod(1, noPort)}, `
endpoints port "" 8080 TCP
endpoints port "dns" 53 UDP
endpoints ready 10.244.0.2 p001
slice port "" 8080 TCP port "dns" 53 UDP
  10.244.0.2 p001 on n1 ready serving`},
		{"a headless service without ports, with host names", testService(headless, portless), []*corev1.Pod{testPod(1, named), testPod(2, elsewhere)}, `
endpoints ready 10.244.0.2 p001 first
endpoints ready 10.244.0.3 p002
slice
  10.244.0.2 p001 on n1 ready serving as first
  10.244.0.3 p002 on n1 ready serving`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			publishes(t, observed{Service: tt.svc, Pods: tt.pods}, strings.TrimPrefix(tt.want, "\n"))
		})
	}
}

// publishes applies o's plan and compares what is published then.
func publishes(t *testing.T, o observed, want string) {
	t.Helper()
	made := 0
	o = perform(o, plan(o), &made)
	if diff := cmp.Diff(want, show(o)); diff != "" {
		t.Error(diff)
	}
	if again := plan(o); len(again) != 0 {
		t.Errorf("does not converge: %v", again)
	}
}

func TestPlanLabels(t *testing.T) {
	o, made := observed{Service: testService(headless)}, 0
	o = perform(o, plan(o), &made)
	want := map[string]string{"team": "a", corev1.IsHeadlessService: "", discoveryv1.LabelServiceName: "web", discoveryv1.LabelManagedBy: slicesManager}
	if diff := cmp.Diff(want, o.Slices[0].Labels); diff != "" {
		t.Error(diff)
	}
	if ref := metav1.GetControllerOf(o.Slices[0]); ref == nil || ref.UID != "service" {
		t.Errorf("owner %+v", ref)
	}
}

func TestPlanRetiresOnlyItsOwn(t *testing.T) {
	full, made := observed{Service: testService(), Pods: []*corev1.Pod{testPod(1)}}, 0
	full = perform(full, plan(full), &made)
	users := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "web"}}
	tests := []struct {
		name string
		o    observed
		want int
	}{
		{"of a service that is gone", observed{Endpoints: full.Endpoints, Slices: full.Slices}, 2},
		{"of one that became external", observed{Service: testService(external), Endpoints: full.Endpoints, Slices: full.Slices}, 2},
		{"not what a user wrote", observed{Endpoints: users}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := plan(tt.o); len(got) != tt.want {
				t.Errorf("%d actions: %v", len(got), got)
			}
		})
	}
}

func TestPlanMirrorsWhatSomebodyWrote(t *testing.T) {
	bare := testService(func(svc *corev1.Service) { svc.Spec.Selector = nil })
	written := func(labels map[string]string) *corev1.Endpoints {
		ports := []corev1.EndpointPort{{Name: "db", Port: 5432, Protocol: corev1.ProtocolTCP}}
		return &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "written", Labels: labels}, Subsets: []corev1.EndpointSubset{
			{Ports: ports, Addresses: []corev1.EndpointAddress{{IP: "192.0.2.1"}, {IP: "2001:db8::1"}}, NotReadyAddresses: []corev1.EndpointAddress{{IP: "192.0.2.2", NodeName: new("n9")}}},
			{Ports: ports, Addresses: []corev1.EndpointAddress{{IP: "192.0.2.1"}}},
		}}
	}
	theirs := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "theirs", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}}}
	const mirrored = "slice port \"db\" 5432 TCP\n  192.0.2.1 ready serving\n  192.0.2.2 on n9"
	full, made := observed{Service: bare, Endpoints: written(nil)}, 0
	full = perform(full, plan(full), &made)
	tests := []struct {
		name string
		o    observed
		want string
	}{
		{"addresses that were written", observed{Service: bare, Endpoints: written(nil)}, mirrored},
		{"not where it is asked not to", observed{Service: bare, Endpoints: written(map[string]string{discoveryv1.LabelSkipMirror: "true"}), Slices: full.Slices}, ""},
		{"not without a service", observed{Endpoints: written(nil), Slices: full.Slices}, ""},
		{"not beside slices of somebody else", observed{Service: bare, Endpoints: written(nil), Slices: append([]*discoveryv1.EndpointSlice{theirs}, full.Slices...)}, "slice"},
		{"not when they are gone", observed{Service: bare, Slices: full.Slices}, ""},
		{"not when the service got a selector", observed{Service: testService(), Endpoints: written(nil), Slices: full.Slices}, "slice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := perform(tt.o, plan(tt.o), &made)
			shown := o
			shown.Endpoints = nil
			if diff := cmp.Diff(tt.want, show(shown)); diff != "" {
				t.Error(diff)
			}
			if again := plan(o); len(again) != 0 {
				t.Errorf("does not converge: %v", again)
			}
		})
	}
}

func TestPlanWritesOneSliceForOnePod(t *testing.T) {
	o, made := observed{Service: testService()}, 0
	for n := range 250 {
		o.Pods = append(o.Pods, testPod(n))
	}
	o = perform(o, plan(o), &made)
	if len(o.Slices) != 3 {
		t.Fatalf("%d slices", len(o.Slices))
	}
	o.Pods[120] = testPod(120, unready)
	got := plan(o)
	if len(got) != 2 || got[1].String() != "update endpointslice web-002 to 100 endpoints" {
		t.Errorf("%v", got)
	}
}

func TestPlanTruncatesEndpoints(t *testing.T) {
	o, made := observed{Service: testService()}, 0
	for n := range maxAddresses + 20 {
		o.Pods = append(o.Pods, testPod(n, unready))
	}
	o.Pods = append(o.Pods, testPod(5000))
	o = perform(o, plan(o), &made)
	if got := describe(o.Endpoints); got != "web: 1 ready, 999 not ready" || o.Endpoints.Annotations[overCapacity] != "truncated" {
		t.Errorf("%s, annotations %v", got, o.Endpoints.Annotations)
	}
	o.Pods = o.Pods[:3]
	o = perform(o, plan(o), &made)
	if len(o.Endpoints.Annotations) != 0 || len(plan(o)) != 0 {
		t.Errorf("annotations %v", o.Endpoints.Annotations)
	}
}

// TestPlanConverges changes Pods at random and expects every endpoint exactly once after one plan.
func TestPlanConverges(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 3))
		o, made := observed{Service: testService()}, 0
		choice := []func(*corev1.Pod){unready, deleting, ended, homeless, otherPort, noPort, named}
		for range 6 {
			o.Pods = nil
			for n := range rng.IntN(320) {
				var changes []func(*corev1.Pod)
				if rng.IntN(3) == 0 {
					changes = append(changes, choice[rng.IntN(len(choice))])
				}
				o.Pods = append(o.Pods, testPod(n, changes...))
			}
			o = perform(o, plan(o), &made)
			if again := plan(o); len(again) != 0 {
				t.Fatalf("seed %d: does not converge: %v", seed, again)
			}
			seen := map[string]int{}
			for _, s := range o.Slices {
				if len(s.Endpoints) > maxEndpoints {
					t.Fatalf("seed %d: slice with %d endpoints", seed, len(s.Endpoints))
				}
				for _, e := range s.Endpoints {
					seen[e.Addresses[0]]++
				}
			}
			for _, m := range membersOf(o.Service, o.Pods) {
				if seen[m.address] != 1 {
					t.Fatalf("seed %d: %s is published %d times", seed, m.address, seen[m.address])
				}
				delete(seen, m.address)
			}
			if len(seen) != 0 {
				t.Fatalf("seed %d: published but gone: %v", seed, seen)
			}
		}
	}
}

// TestPlanGainsBeforeItLoses: a Pod on one port goes in the moment one on another port becomes ready. They are in slices
// of their own, and at no time is none ready.
func TestPlanGainsBeforeItLoses(t *testing.T) {
	made := 0
	for _, order := range [][2]func(*corev1.Pod){{func(*corev1.Pod) {}, otherPort}, {otherPort, func(*corev1.Pod) {}}} {
		o := observed{Service: testService(), Pods: []*corev1.Pod{testPod(1, order[0]), testPod(2, order[1], unready)}}
		o = perform(o, plan(o), &made)
		o.Pods = []*corev1.Pod{testPod(1, order[0], deleting), testPod(2, order[1])}
		actions := plan(o)
		for i, action := range actions {
			o = perform(o, []Action{action}, &made)
			ready := 0
			for _, s := range o.Slices {
				ready += countReady(s)
			}
			if ready == 0 {
				t.Errorf("nothing is ready after step %d of %v", i+1, actions)
			}
		}
	}
}
