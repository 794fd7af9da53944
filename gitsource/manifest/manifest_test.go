package manifest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-dev/slipway/gitsource"
)

// snapshot makes a tree of path, content pairs. They must be sorted by path.
func snapshot(pairs ...string) *gitsource.Snapshot {
	var snap gitsource.Snapshot
	for i := 0; i < len(pairs); i += 2 {
		snap.Files = append(snap.Files, gitsource.File{Path: pairs[i], Data: []byte(pairs[i+1])})
	}
	return &snap
}

func lines[T any](items []T, text func(T) string) []string {
	var out []string
	for _, i := range items {
		out = append(out, text(i))
	}
	return out
}

const web = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: web
        image: web:1
`

func configMap(name string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " + name + "\n"
}

func TestRead(t *testing.T) {
	tests := []struct {
		name     string
		tree     []string
		options  Options
		objects  []string
		notes    []string
		problems []string
	}{
		{name: "an object without a namespace goes to default", tree: []string{"a.yaml", configMap("a")}, objects: []string{"ConfigMap/default/a"}},
		{name: "documents of one file keep their order and lines", tree: []string{"a.yml", "# first\n---\n" + configMap("b") + "---\n# only a comment\n---\n" + configMap("a")},
			objects: []string{"ConfigMap/default/b", "ConfigMap/default/a"}},
		{name: "a List is its items", tree: []string{"a.yaml", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: a}\n- {apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: x}]}}\n"},
			objects:  []string{"ConfigMap/default/a"},
			problems: []string{`a.yaml:7: Service/default/s: spec.ports[0].port: has the wrong type (got the string "x", want a whole number (int32))`}},
		{name: "items of a typed List need no kind", tree: []string{"a.json", `{"apiVersion":"v1","kind":"ConfigMapList","items":[{"metadata":{"name":"a"}}]}`}, objects: []string{"ConfigMap/default/a"}},
		{name: "other YAML is ignored", tree: []string{
			"a/docker-compose.yml", "services: {web: {image: x}}\n", "a/values.yaml", "replicas: 1\n", "b/list.yaml", "- kind: x\n", "b/text.yaml", "just kind: of text\n"}},
		{name: "broken YAML that is no object is ignored", tree: []string{"values.yaml", "a: [1\nb: }\n"}},
		{name: "kinds of others are not acted on", tree: []string{
			"a.yaml", "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: i, namespace: shop}\n", "kustomization.yaml", "resources: [a.yaml]\n",
			"z.yaml", "kind: Pipeline\nsteps: []\n"},
			notes: []string{"a.yaml:1: Ingress/shop/i: not acted on: kind Ingress of networking.k8s.io/v1", "kustomization.yaml:1: not acted on: Kustomization",
				"z.yaml:1: not acted on: has kind Pipeline but no apiVersion"}},
		{name: "a chart is not acted on", tree: []string{"chart/Chart.yaml", "apiVersion: v2\nname: x\n", "chart/templates/a.yaml", "apiVersion: v1\nkind: {{ .Kind }}\n", "plain.yaml", configMap("a")},
			objects: []string{"ConfigMap/default/a"}, notes: []string{"chart/Chart.yaml:1: not acted on: Helm chart"}},
		{name: "a template outside a chart is broken YAML", tree: []string{"a.yaml", "apiVersion: v1\nkind: Service\nmetadata:\n  name: {{ .Name }}\n"},
			problems: []string{`a.yaml:4: metadata.name: a key is not a string (got a mapping or list)`}},
		{name: "a syntax error does not hide its neighbours", tree: []string{"a.yaml", configMap("a") + "---\napiVersion: v1\nkind: Service\n  x: [\n---\n" + configMap("b")},
			objects: []string{"ConfigMap/default/a", "ConfigMap/default/b"}, problems: []string{"a.yaml:8: is not valid YAML: mapping values are not allowed in this context"}},
		{name: "unknown fields and wrong types, each with its line", tree: []string{"shop/web.yaml", strings.Replace(web, "image: web:1", "imagee: web:1\n        ports:\n        - containerPort: \"80\"\n        env: {a: b}", 1)},
			problems: []string{
				`shop/web.yaml:14: Deployment/shop/web: spec.template.spec.containers[0].imagee: unknown field (did you mean "image"?)`,
				`shop/web.yaml:16: Deployment/shop/web: spec.template.spec.containers[0].ports[0].containerPort: has the wrong type (got the string "80", want a whole number (int32))`,
				`shop/web.yaml:17: Deployment/shop/web: spec.template.spec.containers[0].env: has the wrong type (got a mapping, want a list)`}},
		{name: "validation finds what Kubernetes finds", tree: []string{"shop/web.yaml", strings.Replace(web, "        image: web:1", "        imagePullPolicy: Sometimes", 1)},
			problems: []string{
				`shop/web.yaml:13: Deployment/shop/web: spec.template.spec.containers[0].image: is missing`,
				`shop/web.yaml:14: Deployment/shop/web: spec.template.spec.containers[0].imagePullPolicy: is not supported (got "Sometimes", want one of "Always", "IfNotPresent", "Never")`}},
		{name: "a key set twice", tree: []string{"a.yaml", configMap("a") + "data:\n  x: a\n  x: b\n"},
			problems: []string{`a.yaml:7: ConfigMap/default/a: data.x: is set twice (first one line above)`}},
		{name: "an unquoted y is a boolean", tree: []string{"a.yaml", configMap("a") + "data: {x: y}\n"},
			problems: []string{`a.yaml:5: ConfigMap/default/a: data[x]: has the wrong type (got the boolean true, want a string; quote it)`}},
		{name: "an object in the tree twice", tree: []string{"a.yaml", configMap("a"), "b.yaml", "\n" + configMap("a") + "  namespace: default\n"},
			problems: []string{`b.yaml:2: ConfigMap/default/a: is in the tree twice (first at a.yaml:1)`}},
		{name: "a retired apiVersion", tree: []string{"a.yaml", strings.Replace(web, "apps/v1", "extensions/v1beta1", 1)},
			problems: []string{`a.yaml:2: Deployment/shop/web: kind: unknown apiVersion for kind Deployment (got "extensions/v1beta1", want "apps/v1")`}},
		{name: "a mistyped kind", tree: []string{"a.yaml", strings.Replace(web, "Deployment", "Deploymnet", 1)},
			problems: []string{`a.yaml:2: Deploymnet/shop/web: kind: unknown kind (got "Deploymnet" of apps/v1, did you mean "Deployment"?)`}},
		{name: "a mistyped apiVersion key", tree: []string{"a.yaml", strings.Replace(web, "apiVersion", "apiVersoin", 1)},
			problems: []string{`a.yaml:1: Deployment/shop/web: apiVersion: is missing`}},
		{name: "somebody else's Service", tree: []string{"a.yaml", "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\n"},
			notes: []string{"a.yaml:1: Service/a: not acted on: kind Service of serving.knative.dev/v1"}},
		{name: "generateName cannot come from Git", tree: []string{"a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  generateName: a-\n"},
			problems: []string{`a.yaml:4: ConfigMap/default/: metadata.generateName: cannot come from Git: every reading of the tree would make another object (want metadata.name)`}},
		{name: "requests cannot come from Git", tree: []string{"a.yaml", "apiVersion: v1\nkind: Binding\nmetadata: {name: a}\n"},
			problems: []string{`a.yaml:2: Binding/a: kind: Binding is a request that is answered and never stored: it cannot come from Git`}},
		{name: "a namespace on what has none", tree: []string{"a.yaml", "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: a\n  namespace: b\nrules: []\n"},
			objects: []string{"ClusterRole/a"}, notes: []string{"a.yaml:5: ClusterRole/a: not acted on: metadata.namespace (a ClusterRole has none)"}},
		{name: "a folder of the tree", options: Options{Path: "b/"}, tree: []string{"a/a.yaml", configMap("a"), "b/b.yaml", configMap("b"), "bc/c.yaml", configMap("c")}, objects: []string{"ConfigMap/default/b"}},
		{name: "a folder that is not there", options: Options{Path: "deploy"}, tree: []string{"a/a.yaml", configMap("a")},
			problems: []string{"deploy: holds no manifests: no such folder in the tree, or no .yaml, .yml or .json file in it"}},
		{name: "a folder outside the tree", options: Options{Path: "a/../../etc"}, tree: []string{"a/a.yaml", configMap("a")}, problems: []string{"a/../../etc: is not a folder inside the tree"}},
		{name: "a Git LFS pointer", tree: []string{"a.yaml", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"},
			problems: []string{"a.yaml:1: is a Git LFS pointer, which is not followed: keep the file itself in the repository"}},
		{name: "UTF-16", tree: []string{"a.yaml", "\xff\xfea\x00"}, problems: []string{"a.yaml: is not readable text (got UTF-16, want UTF-8)"}},
		{name: "a byte order mark and DOS line ends", tree: []string{"a.yaml", "\xef\xbb\xbf" + strings.ReplaceAll(configMap("a")+"---\n"+configMap("b"), "\n", "\r\n")}, objects: []string{"ConfigMap/default/a", "ConfigMap/default/b"}},
		{name: "JSON with tabs and surrogates", tree: []string{"a.json", "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"ConfigMap\",\n\t\"metadata\": {\"name\": \"a\"},\n\t\"data\": {\"x\": \"\\ud83d\\ude00\", \"y\": 1}\n}\n"},
			problems: []string{"a.json:5: ConfigMap/default/a: data[y]: has the wrong type (got the number 1, want a string; quote it)"}},
		{name: "broken JSON", tree: []string{"a.json", "{\"apiVersion\": \"v1\",\n\"kind\": \"ConfigMap\",\n}\n"},
			problems: []string{"a.json:3: is not valid JSON: invalid character '}' looking for beginning of object key string"}},
		{name: "a document after its end marker", tree: []string{"a.yaml", configMap("a") + "...\n" + configMap("b")}, objects: []string{"ConfigMap/default/a", "ConfigMap/default/b"}},
		{name: "most useful last", tree: []string{"a.yaml", "apiVersion: v1\nkind: Service\n\tx: y\n", "b.yaml", strings.Replace(web, "image: web:1", "image: ''", 1), "c.yaml", configMap("c") + "dta: {}\n"},
			problems: []string{"b.yaml:14: Deployment/shop/web: spec.template.spec.containers[0].image: is missing", `c.yaml:5: ConfigMap/default/c: dta: unknown field (did you mean "data"?)`,
				"a.yaml:2: is not valid YAML: found a tab character that violates indentation"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			result, problems := Read(snapshot(tt.tree...), tt.options)
			if diff := cmp.Diff(tt.problems, lines(problems, Problem.String)); diff != "" {
				t.Errorf("problems: %s", diff)
			}
			if diff := cmp.Diff(tt.notes, lines(result.NotActedOn, Note.String)); diff != "" {
				t.Errorf("notes: %s", diff)
			}
			if len(tt.objects) > 0 || len(problems) == 0 {
				got := lines(result.Objects, Object.String)
				if len(problems) > 0 {
					got = got[:min(len(got), len(tt.objects))]
				}
				if diff := cmp.Diff(tt.objects, got); diff != "" {
					t.Errorf("objects: %s", diff)
				}
			}
		})
	}
}

func TestReaderReadsOnlyWhatChanged(t *testing.T) {
	reader := NewReader()
	text := func(r Result, p []Problem) []string {
		out := append(lines(r.Objects, Object.String), lines(r.NotActedOn, Note.String)...)
		return append(out, lines(p, Problem.String)...)
	}
	first, _ := reader.Read(snapshot("a.yaml", configMap("a"), "b.yaml", configMap("b")), Options{})
	for _, tree := range [][]string{
		{"a.yaml", configMap("a"), "b.yaml", configMap("c")},
		{"a.yaml", configMap("a"), "b.yaml", configMap("a")}, // now there twice
		{"a.yaml", configMap("a"), "b.yaml", "apiVersion: v1\nkind: ["},
		{"Chart.yaml", "", "a.yaml", configMap("a")}, // now a chart's
		{"a.yaml", configMap("a"), "b.yaml", configMap("b")},
	} {
		want := text(Read(snapshot(tree...), Options{}))
		if diff := cmp.Diff(want, text(reader.Read(snapshot(tree...), Options{}))); diff != "" {
			t.Error(diff)
		}
	}
	again, _ := reader.Read(snapshot("a.yaml", configMap("a"), "b.yaml", configMap("b")), Options{Path: "."})
	once, _ := reader.Read(snapshot("a.yaml", configMap("a"), "b.yaml", configMap("b")+"data: {x: z}\n"), Options{})
	if once.Objects[0].Object != again.Objects[0].Object || once.Objects[1].Object == again.Objects[1].Object || first.Objects[0].String() != once.Objects[0].String() {
		t.Error("what changed and what did not are not told apart")
	}
}

func TestServerSetFieldsAreDropped(t *testing.T) {
	const text = `apiVersion: v1
kind: Service
metadata:
  name: a
  uid: 1-2-3
  resourceVersion: "5"
  creationTimestamp: null
  managedFields: [{manager: x}]
  labels: {app: a}
spec:
  ports: [{port: 80}]
  externalName: null
status:
  loadBalancer: {}
`
	result, problems := Read(snapshot("a.yaml", text), Options{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	const want = `{"apiVersion":"v1","kind":"Service","metadata":{"labels":{"app":"a"},"name":"a","namespace":"default"},"spec":{"ports":[{"port":80}]}}`
	if got := string(result.Objects[0].JSON); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if uid := result.Objects[0].Object.GetUID(); uid != "" {
		t.Errorf("uid %s survived", uid)
	}
}

func TestSecretValuesAreNeverShown(t *testing.T) {
	const secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata:\n  a: hunter2!\n  b: 4711\n  hunter2/x: aGk=\nstringData: {c: 4711, d: [hunter2]}\ntype: kubernetes.io/dockerconfigjson\nimmutable: hunter2\n"
	_, problems := Read(snapshot("s.yaml", secret), Options{})
	if len(problems) < 4 {
		t.Errorf("got %d problems, want one for each bad value: %v", len(problems), problems)
	}
	for _, p := range problems {
		if strings.Contains(p.Message, "hunter2") || strings.Contains(p.Message, "4711") {
			t.Errorf("shown: %s", p)
		}
	}
}

func TestFieldLine(t *testing.T) {
	const text = `
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata:
    name: a
    annotations:
      example.com/note: |
        two
        lines
  spec:
    containers:
    - name: one
      image: one
      resources:
        limits: {cpu: 1}
    - name: two
      image: two
`
	result, problems := Read(snapshot("a.yaml", text), Options{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	o := result.Objects[0]
	for field, want := range map[string]int{
		"": 5, "kind": 6, "metadata.name": 8, "metadata.annotations[example.com/note]": 10, "metadata.annotations.example.com/note": 10,
		"spec.containers": 14, "spec.containers[0]": 15, "spec.containers[0].image": 16, "spec.containers[0].resources.limits[cpu]": 18, "spec.containers[1].image": 20,
		"spec.containers[1].command": 19, "spec.containers[7].image": 14, "spec.nodeName": 13, "status.phase": 5, "spec.containers[x": 14, "[": 5, "..": 5,
	} {
		if got := o.FieldLine(field); got != want {
			t.Errorf("%s: got line %d, want %d", field, got, want)
		}
	}
}
