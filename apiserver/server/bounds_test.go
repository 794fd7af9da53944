package server

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/apiserver/server/callers"
	"github.com/slipway-dev/slipway/apiserver/store"
)

func TestCallerOf(t *testing.T) {
	for name, c := range map[string]struct {
		id   registry.Identity
		want callers.Caller
	}{
		"a person by place":               {registry.Identity{Name: "reader", Groups: []string{registry.GroupPeople}}, callers.Caller{Pool: callers.People, Group: "reader", Name: "10.0.0.9"}},
		"a service account by namespace":  {registry.Identity{Name: "system:serviceaccount:shop:web"}, callers.Caller{Pool: callers.Workloads, Group: "shop", Name: "system:serviceaccount:shop:web"}},
		"an agent":                        {registry.Node("a"), callers.Caller{Pool: callers.Parts, Group: "Slipway", Name: "system:node:a"}},
		"who may do everything":           {registry.Admin(), callers.Caller{Pool: callers.Parts, Group: "Slipway", Name: "system:admin"}},
		"nobody":                          {registry.Identity{}, callers.Caller{Pool: callers.Nameless, Group: "no name", Name: "10.0.0.9"}},
		"who only calls himself an agent": {registry.Identity{Name: "system:node:a"}, callers.Caller{Pool: callers.People, Group: "system:node:a", Name: "10.0.0.9"}},
	} {
		if diff := cmp.Diff(c.want, callerOf(c.id, "10.0.0.9:1234")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// watching opens a watch and returns the answer's status and Retry-After; the stream stays open until the test ends.
func (f *fixture) watching(t testing.TB, client *http.Client, headers ...string) (code int, retry string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+"/api/v1/namespaces/shop/configmaps?watch=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	if response.StatusCode == http.StatusOK {
		if _, err := bufio.NewReader(response.Body).ReadString('\n'); err != nil { // it is under way
			t.Fatal(err)
		}
	}
	return response.StatusCode, response.Header.Get("Retry-After")
}

func TestOneCallersWatchesLeaveRoomForOthers(t *testing.T) {
	bounds := callers.Defaults()
	for _, pool := range []callers.Pool{callers.People, callers.Workloads} {
		b := bounds[pool]
		b.Caller[callers.Stream], b.Group[callers.Stream], b.Pool[callers.Stream] = 3, 3, 5
		bounds[pool] = b
	}
	f := newFixture(t, bounds)
	f.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "other"}})
	tokens := map[string]string{}
	for _, namespace := range []string{"shop", "other"} {
		if namespace == "other" {
			f.create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "default"}})
		}
		account, err := store.Get[*corev1.ServiceAccount](t.Context(), f.admin, namespace, "default")
		if err != nil {
			t.Fatal(err)
		}
		token, _, err := f.tokens.Issue(account, nil, nil, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		tokens[namespace] = "Bearer " + token
	}
	f.create(t, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "look"}, Rules: []rbacv1.PolicyRule{{Verbs: []string{"watch"}, APIGroups: []string{""}, Resources: []string{"configmaps"}}}})
	f.create(t, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "look"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "look"},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "system:serviceaccounts"}}})
	person, workload := f.person(t), f.client(t, "")
	var got []string
	note := func(who string, code int, retry string) {
		got = append(got, fmt.Sprintf("%s: %d %s", who, code, retry))
	}
	for range 4 {
		code, retry := f.watching(t, person)
		note("person", code, retry)
	}
	for range 4 {
		code, retry := f.watching(t, workload, "Authorization", tokens["shop"])
		note("shop", code, retry)
	}
	code, retry := f.watching(t, workload, "Authorization", tokens["other"])
	note("other", code, retry)
	code, retry = f.watching(t, f.client(t, "root", "system:masters"))
	note("root", code, retry)
	code, _ = f.do(t, person, http.MethodGet, "/api/v1/namespaces/shop/configmaps/settings", "")
	note("person's read", code, "")
	want := []string{"person: 200 ", "person: 200 ", "person: 200 ", "person: 429 1", "shop: 200 ", "shop: 200 ", "shop: 200 ", "shop: 429 1",
		"other: 200 ", "root: 200 ", "person's read: 200 "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLargeAnswersAndBodiesAreCounted(t *testing.T) {
	bounds := callers.Defaults()
	people := bounds[callers.People]
	people.Caller[callers.Large] = 0
	bounds[callers.People] = people
	f := newFixture(t, bounds)
	for n := range largeList + 1 {
		f.create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("c", n)}})
	}
	person, root := f.person(t), f.client(t, "root", "system:masters")
	big := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"big"},"data":{"a":%q}}`, strings.Repeat("x", largeBody))
	const maps = "/api/v1/namespaces/shop/configmaps"
	for name, c := range map[string]struct {
		client       *http.Client
		method, path string
		body         string
		want         int
	}{
		"a whole list":         {person, http.MethodGet, maps, "", http.StatusTooManyRequests},
		"a page":               {person, http.MethodGet, maps + "?limit=100", "", http.StatusOK},
		"another's whole list": {root, http.MethodGet, maps, "", http.StatusOK},
		"a large body":         {person, http.MethodPost, maps + "?dryRun=All", big, http.StatusTooManyRequests},
		"another's large body": {root, http.MethodPost, maps, big, http.StatusCreated},
	} {
		if code, body := f.do(t, c.client, c.method, c.path, c.body, "Content-Type", "application/json"); code != c.want {
			t.Errorf("%s: %d %.200s, want %d", name, code, body, c.want)
		}
	}
}

// BenchmarkIdleWatches reports what one open watch costs, its client's side included.
func BenchmarkIdleWatches(b *testing.B) {
	f := newFixture(b)
	client := f.client(b, "root", "system:masters")
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	f.watching(b, client)
	const watches = 1000
	before := memory()
	for range watches {
		f.watching(b, client)
	}
	each := float64(memory()-before) / watches
	for b.Loop() {
		b.ReportMetric(each, "B/watch") // nothing is timed
	}
}

// drip is a reader who takes a piece every 20 seconds, in time for each.
type drip struct {
	http.ResponseWriter
	deadline time.Time
}

func (d *drip) WriteHeader(int)                       {}
func (d *drip) Header() http.Header                   { return http.Header{} }
func (d *drip) SetWriteDeadline(when time.Time) error { d.deadline = when; return nil }

func (d *drip) Write(p []byte) (int, error) {
	time.Sleep(min(20*time.Second, time.Until(d.deadline)))
	if !time.Now().Before(d.deadline) {
		return 0, os.ErrDeadlineExceeded
	}
	return len(p), nil
}

func TestAReaderOfDropsIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		const size = 50 << 20
		send(&drip{}, http.StatusOK, "application/json", make([]byte, size))
		if took, most := time.Since(began), 2*writeTimeout+size/slowest*time.Second; took > most {
			t.Errorf("an answer of 50 MB was kept for %s, want %s at most", took, most)
		}
	})
}
