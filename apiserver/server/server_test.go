package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"

	"github.com/slipway-dev/slipway/apiserver/api"
	"github.com/slipway-dev/slipway/apiserver/pki"
	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/apiserver/server/callers"
	"github.com/slipway-dev/slipway/apiserver/store"
	"github.com/slipway-dev/slipway/apiserver/store/kv/memory"
	"github.com/slipway-dev/slipway/testing/need"
)

// api under test: a real TLS server over a registry on memory, and clients of it.
type fixture struct {
	url        string
	admin      store.Client
	authority  *pki.Authority
	tokens     *pki.Tokens
	kubeconfig string // of a person
}

const secretValue = "correct horse battery staple"

type fakeLogs struct{}

func (fakeLogs) Logs(_ context.Context, pod *corev1.Pod, opts *corev1.PodLogOptions) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("hello from " + pod.Name + "/" + opts.Container + "\n")), nil
}

func newFixture(t testing.TB, bounds ...map[callers.Pool]callers.Bounds) *fixture {
	t.Helper()
	s, err := store.New(t.Context(), memory.New(), api.StorageCodec{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	authority, err := pki.Open(filepath.Join(t.TempDir(), "pki"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := authority.Tokens("https://kubernetes.default.svc.cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	reg, err := registry.New(registry.Config{Store: s, Tokens: tokens})
	if err != nil {
		t.Fatal(err)
	}
	bounds = append(bounds, nil)
	handler := New(Config{Bounds: bounds[0], Registry: reg, Tokens: tokens, Logs: fakeLogs{}, Metrics: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Version: version.Info{Major: "1", Minor: "37", GitVersion: "v1.37.1+slipway.0"},
		Checks:  []Check{{Name: "store", Probe: func(context.Context) error { return nil }}}})
	config, err := authority.TLS([]string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.TLS = config
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	f := &fixture{url: server.URL, admin: reg.As(registry.Admin()), authority: authority, tokens: tokens, kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	if err := authority.WriteKubeconfig(f.kubeconfig, server.URL, "reader", registry.GroupPeople); err != nil {
		t.Fatal(err)
	}
	f.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	f.create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "default"}})
	f.create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "settings", Labels: map[string]string{"app": "web"}}, Data: map[string]string{"color": "green"}})
	f.create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "key"}, StringData: map[string]string{"password": secretValue}})
	f.create(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "web:1"}}}})
	return f
}

func (f *fixture) create(t testing.TB, obj api.Object) {
	t.Helper()
	if _, err := f.admin.Create(t.Context(), obj, store.CreateOptions{}); err != nil {
		t.Fatalf("create %s: %v", obj.GetName(), err)
	}
}

// client returns an HTTP client with the certificate of user, or none for an empty name.
func (f *fixture) client(t testing.TB, user string, groups ...string) *http.Client {
	t.Helper()
	config := &tls.Config{RootCAs: f.authority.Pool()}
	if user != "" {
		certPEM, keyPEM, err := f.authority.ClientCertificate(user, groups...)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(certPEM, keyPEM)
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (f *fixture) person(t testing.TB) *http.Client {
	return f.client(t, "reader", registry.GroupPeople)
}

// do sends a request and returns status and body.
func (f *fixture) do(t testing.TB, client *http.Client, method, path, body string, headers ...string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, f.url+path, strings.NewReader(body))
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
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(answer)
}

// kubectl runs every kubectl tests know with the person's kubeconfig and calls check with what each printed.
func (f *fixture) kubectl(t *testing.T, check func(t *testing.T, out string, err error), args ...string) {
	t.Helper()
	for _, binary := range need.Kubectls(t) {
		t.Run(filepath.Base(binary)+" "+strings.Join(args, " "), func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), binary, append([]string{"--kubeconfig", f.kubeconfig, "--cache-dir", t.TempDir(), "-n", "shop"}, args...)...)
			out, err := cmd.CombinedOutput()
			check(t, string(out), err)
		})
	}
}

func contains(parts ...string) func(*testing.T, string, error) {
	return func(t *testing.T, out string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("kubectl: %v", err)
		}
		for _, part := range parts {
			if !strings.Contains(out, part) {
				t.Errorf("output lacks %q", part)
			}
		}
		if t.Failed() {
			t.Log(out)
		}
	}
}

func TestKubectlReads(t *testing.T) {
	f := newFixture(t)
	f.kubectl(t, contains("NAME", "READY", "STATUS", "web", "0/1", "Pending"), "get", "pods")
	f.kubectl(t, contains("NOMINATED NODE", "web"), "get", "po", "-o", "wide")
	f.kubectl(t, contains("name: settings", "color: green", "kind: ConfigMap", "apiVersion: v1"), "get", "cm", "settings", "-o", "yaml")
	f.kubectl(t, contains("pod/web"), "get", "all")
	f.kubectl(t, contains("settings"), "get", "configmaps", "-l", "app=web", "-A")
	f.kubectl(t, contains("Name:", "web", "Image:", "web:1"), "describe", "pod", "web")
	f.kubectl(t, contains("hello from web/app"), "logs", "web", "-c", "app")
	f.kubectl(t, contains("deployments", "rollouts", "configmaps"), "api-resources")
	f.kubectl(t, contains("v1.37.1+slipway.0"), "version")
	f.kubectl(t, contains("KioqKio="), "get", "secret", "key", "-o", "yaml")
	f.kubectl(t, contains("yes"), "auth", "can-i", "list", "pods")
}

func TestKubectlCannotWrite(t *testing.T) {
	f := newFixture(t)
	refused := func(t *testing.T, out string, err error) {
		if err == nil || !strings.Contains(out, "is read-only here: people change the cluster in Git") {
			t.Errorf("kubectl printed %q, %v; want it to be forbidden with the reason", out, err)
		}
	}
	f.kubectl(t, refused, "delete", "pod", "web", "--wait=false")
	f.kubectl(t, refused, "label", "pod", "web", "a=b")
	f.kubectl(t, refused, "create", "configmap", "mine")
	f.kubectl(t, refused, "create", "namespace", "mine")
	if _, err := f.admin.Get(t.Context(), api.Pods, "shop", "web"); err != nil {
		t.Errorf("the Pod is gone: %v", err)
	}
}

// TestSecretsStayMasked asks for Secrets in every shape a person can.
func TestSecretsStayMasked(t *testing.T) {
	f := newFixture(t)
	encoded, err := json.Marshal([]byte(secretValue))
	if err != nil {
		t.Fatal(err)
	}
	leaks := func(text string) bool {
		return strings.Contains(text, secretValue) || strings.Contains(text, strings.Trim(string(encoded), `"`))
	}
	person := f.person(t)
	const table = "application/json;as=Table;v=v1;g=meta.k8s.io"
	for _, path := range []string{"/api/v1/secrets", "/api/v1/namespaces/shop/secrets", "/api/v1/namespaces/shop/secrets/key",
		"/api/v1/namespaces/shop/secrets?watch=1&timeoutSeconds=1", "/api/v1/namespaces/shop/secrets?includeObject=Object"} {
		for _, accept := range []string{"application/json", table, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"} {
			code, body := f.do(t, person, http.MethodGet, path, "", "Accept", accept)
			if code != http.StatusOK || !strings.Contains(body, "key") || leaks(body) {
				t.Errorf("%s as %s: %d, leaks %v\n%s", path, accept, code, leaks(body), body)
			}
		}
	}
	code, body := f.do(t, person, http.MethodPatch, "/api/v1/namespaces/shop/secrets/key?dryRun=All", `{"metadata":{"labels":{"a":"b"}}}`, "Content-Type", "application/merge-patch+json")
	if code != http.StatusOK || leaks(body) {
		t.Errorf("dry run: %d, leaks %v\n%s", code, leaks(body), body)
	}
	if code, body := f.do(t, f.client(t, "root", "system:masters"), http.MethodGet, "/api/v1/namespaces/shop/secrets/key", ""); code != http.StatusOK || !leaks(body) {
		t.Errorf("the system itself reads %d %s, want the value", code, body)
	}
}

func TestTriesWarnOfWhatIsNotActedOn(t *testing.T) {
	f := newFixture(t)
	manifest := filepath.Join(t.TempDir(), "service.yaml")
	text := "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}], trafficDistribution: PreferClose}\n"
	if err := os.WriteFile(manifest, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	binary := need.Kubectls(t)[0]
	out, err := exec.CommandContext(t.Context(), binary, "--kubeconfig", f.kubeconfig, "--cache-dir", t.TempDir(), "-n", "shop", "create", "--dry-run=server", "--validate=false", "-f", manifest).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Warning: ") || !strings.Contains(string(out), "trafficDistribution") {
		t.Errorf("kubectl: %v\n%s", err, out)
	}
	if _, err := f.admin.Get(t.Context(), api.Services, "shop", "web"); err == nil {
		t.Error("a dry run was stored")
	}
}

func TestAuthentication(t *testing.T) {
	f := newFixture(t)
	nobody := f.client(t, "")
	for path, want := range map[string]int{"/healthz": 200, "/livez": 200, "/readyz": 200, "/version": 200, "/api": 401, "/apis": 401, "/metrics": 401, "/api/v1/pods": 401, "/nothing": 401} {
		if code, body := f.do(t, nobody, http.MethodGet, path, ""); code != want {
			t.Errorf("%s without a name: %d, want %d\n%s", path, code, want, body)
		}
	}
	account, err := store.Get[*corev1.ServiceAccount](t.Context(), f.admin, "shop", "default")
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := f.tokens.Issue(account, nil, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if code, body := f.do(t, nobody, http.MethodGet, "/api/v1/namespaces/shop/pods", "", "Authorization", "Bearer "+token); code != http.StatusForbidden {
		t.Errorf("a workload without a role: %d, want 403\n%s", code, body)
	}
	if code, body := f.do(t, nobody, http.MethodGet, "/metrics", "", "Authorization", "Bearer "+token); code != http.StatusForbidden {
		t.Errorf("metrics by a workload without a role: %d, want 403\n%s", code, body)
	}
	if code, body := f.do(t, f.person(t), http.MethodGet, "/metrics", ""); code != http.StatusOK {
		t.Errorf("metrics by a person: %d\n%s", code, body)
	}
	if code, body := f.do(t, nobody, http.MethodGet, "/apis", "", "Authorization", "Bearer "+token); code != http.StatusOK {
		t.Errorf("discovery by a workload: %d\n%s", code, body)
	}
	for name, header := range map[string]string{"garbage": "Bearer x.y.z", "basic": "Basic cm9vdDpyb290", "empty": "Bearer "} {
		if code, _ := f.do(t, nobody, http.MethodGet, "/api/v1/pods", "", "Authorization", header); code != http.StatusUnauthorized {
			t.Errorf("%s: %d, want 401", name, code)
		}
	}
	if code, _ := f.do(t, f.client(t, "root", "system:masters"), http.MethodGet, "/api/v1/pods", "", "Impersonate-User", "x"); code != http.StatusForbidden {
		t.Errorf("impersonation: %d, want 403", code)
	}
	if _, err := f.admin.Delete(t.Context(), api.ServiceAccounts, "shop", "default", store.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if code, _ := f.do(t, nobody, http.MethodGet, "/apis", "", "Authorization", "Bearer "+token); code != http.StatusUnauthorized {
		t.Errorf("the token of a deleted account: %d, want 401", code)
	}
}

func TestWatchStreamsEachChangeOnce(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/api/v1/namespaces/shop/configmaps?watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := f.person(t).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	next := func() string {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("stream ended: %v", lines.Err())
		}
		var event struct {
			Type   string
			Object metav1.PartialObjectMetadata
		}
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			t.Fatal(err)
		}
		if event.Object.Kind != "ConfigMap" || event.Object.ResourceVersion == "" {
			t.Errorf("event %s carries %+v", event.Type, event.Object)
		}
		return strings.TrimSpace(event.Type + " " + event.Object.Name + " " + event.Object.Annotations[metav1.InitialEventsAnnotationKey])
	}
	got := []string{next(), next()}
	f.create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "other"}})
	got = append(got, next())
	if _, err := f.admin.Delete(t.Context(), api.ConfigMaps, "shop", "other", store.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	got = append(got, next())
	if diff := cmp.Diff([]string{"ADDED settings", "BOOKMARK  true", "ADDED other", "DELETED other"}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestBadRequestsAreExplained(t *testing.T) {
	f := newFixture(t)
	root := f.client(t, "root", "system:masters")
	for name, c := range map[string]struct {
		method, path, body, header string
		code                       int
		says                       string
	}{
		"unknown resource":     {"GET", "/api/v1/things", "", "", 404, "could not find the requested resource"},
		"unknown group":        {"GET", "/apis/example.com/v1/things", "", "", 404, "could not find the requested resource"},
		"missing object":       {"GET", "/api/v1/namespaces/shop/pods/none", "", "", 404, `pods \"none\" not found`},
		"selector":             {"GET", "/api/v1/pods?labelSelector=a==,=", "", "", 400, "unable to parse requirement"},
		"unknown field":        {"POST", "/api/v1/namespaces/shop/configmaps", `{"metadata":{"name":"x"},"dat":{}}`, "", 400, `unknown field \"dat\"`},
		"invalid object":       {"POST", "/api/v1/namespaces/shop/configmaps", `{"metadata":{"name":"X Y"}}`, "", 422, "metadata.name"},
		"other namespace":      {"POST", "/api/v1/namespaces/shop/configmaps", `{"metadata":{"name":"x","namespace":"y"}}`, "", 400, "does not match the namespace"},
		"other name":           {"PUT", "/api/v1/namespaces/shop/configmaps/settings", `{"metadata":{"name":"y"}}`, "", 400, "does not match the name"},
		"body not JSON":        {"POST", "/api/v1/namespaces/shop/configmaps", `{`, "", 400, "cannot be handled"},
		"large body":           {"POST", "/api/v1/namespaces/shop/configmaps", strings.Repeat("x", maxBody+1), "", 413, "3 MiB"},
		"protobuf body":        {"POST", "/api/v1/namespaces/shop/configmaps", "garbage", "application/vnd.kubernetes.protobuf", 400, "cannot be handled"},
		"other body":           {"POST", "/api/v1/namespaces/shop/configmaps", "", "application/cbor", 415, "application/json"},
		"method":               {"POST", "/api/v1/namespaces/shop/configmaps/settings", "", "", 405, "not supported"},
		"delete of collection": {"DELETE", "/api/v1/namespaces/shop/configmaps", "", "", 405, "not supported"},
		"exec":                 {"GET", "/api/v1/namespaces/shop/pods/web/exec?command=sh", "", "", 405, "pods/exec is not offered"},
		"proxy":                {"POST", "/api/v1/namespaces/shop/services/web/proxy/a/b", "", "", 405, "services/proxy is not offered"},
		"scale":                {"PUT", "/apis/apps/v1/namespaces/shop/deployments/web/scale", "", "", 405, "deployments/scale is not offered"},
		"get of a binding":     {"GET", "/api/v1/namespaces/shop/pods/web/binding", "", "", 405, "pods/binding"},
		"delete of a status":   {"DELETE", "/api/v1/namespaces/shop/pods/web/status", "", "", 405, "pods/status"},
		"delete of a token":    {"DELETE", "/api/v1/namespaces/shop/serviceaccounts/default/token", "", "", 405, "serviceaccounts/token"},
		"dry run":              {"POST", "/api/v1/namespaces/shop/configmaps?dryRun=Some", `{}`, "", 400, "want All"},
		"tail":                 {"GET", "/api/v1/namespaces/shop/pods/web/log?tailLines=-1", "", "", 400, "tailLines"},
	} {
		t.Run(name, func(t *testing.T) {
			headers := []string{}
			if c.header != "" {
				headers = []string{"Content-Type", c.header}
			}
			code, body := f.do(t, root, c.method, c.path, c.body, headers...)
			var status metav1.Status
			if err := json.Unmarshal([]byte(body), &status); err != nil {
				t.Fatalf("the answer is no Status: %s", body)
			}
			if code != c.code || int(status.Code) != c.code || !strings.Contains(body, c.says) {
				t.Errorf("got %d %s, want %d with %q", code, body, c.code, c.says)
			}
		})
	}
}

func TestDiscoveryListsEveryKind(t *testing.T) {
	f := newFixture(t)
	person := f.person(t)
	_, core := f.do(t, person, http.MethodGet, "/api", "", "Accept", aggregated)
	_, groups := f.do(t, person, http.MethodGet, "/apis", "", "Accept", aggregated)
	for _, kind := range api.Kinds() {
		if kind == api.Bindings || kind == api.TokenRequests {
			continue
		}
		path := "/apis/" + kind.Group + "/" + kind.Version
		whole := groups
		if kind.Group == "" {
			path, whole = "/api/v1", core
		}
		if !strings.Contains(whole, `"resource":"`+kind.Resource+`"`) {
			t.Errorf("aggregated discovery lacks %s", kind)
		}
		var list metav1.APIResourceList
		_, body := f.do(t, person, http.MethodGet, path, "")
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			t.Fatal(err)
		}
		found := false
		for _, r := range list.APIResources {
			found = found || r.Name == kind.Resource && r.Kind == kind.Kind && r.Namespaced == kind.Namespaced
		}
		if !found {
			t.Errorf("%s lacks %s", path, kind)
		}
	}
}

// TestTablesOfEveryKind prints an empty list and an empty object of every kind, which finds a row without columns.
func TestTablesOfEveryKind(t *testing.T) {
	tables := newTables()
	for _, kind := range api.Kinds() {
		if kind.CreateOnly {
			continue
		}
		for _, objs := range [][]api.Object{nil, {kind.New()}} {
			table, err := tables.table(kind, objs, metav1.IncludeMetadata)
			if err != nil {
				t.Errorf("%s: %v", kind, err)
				continue
			}
			if len(table.ColumnDefinitions) == 0 || len(table.Rows) != len(objs) {
				t.Errorf("%s: %d columns, %d rows for %d objects", kind, len(table.ColumnDefinitions), len(table.Rows), len(objs))
			}
			if _, err := json.Marshal(table); err != nil {
				t.Errorf("%s: %v", kind, err)
			}
		}
	}
}

func TestHealthNamesWhatFails(t *testing.T) {
	var log bytes.Buffer
	s := &server{Config: Config{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})), Checks: []Check{
		{Name: "store", Live: true, Probe: func(context.Context) error { return nil }},
		{Name: "engine", Probe: func(context.Context) error { return errText("socket /secret/path is gone") }},
	}}}
	ask := func(live bool) (int, string) {
		w := httptest.NewRecorder()
		s.health(live)(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		return w.Code, w.Body.String()
	}
	code, body := ask(false)
	if want := "[+]store ok\n[-]engine failed: reason withheld\nreadyz check failed\n"; code != 500 || body != want {
		t.Errorf("readyz: %d %q, want 500 %q", code, body, want)
	}
	if !strings.Contains(log.String(), "socket /secret/path is gone") {
		t.Error("the log does not say why")
	}
	if code, body := ask(true); code != 200 || body != "ok" {
		t.Errorf("livez: %d %q, want ok", code, body)
	}
}
