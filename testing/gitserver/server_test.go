package gitserver

import (
	"net/http"
	"strings"
	"testing"
)

func TestServerServesAndReceives(t *testing.T) {
	s := Start(t)
	id := s.Push(map[string]string{"a.yaml": "a: 1\n", "b/c.yaml": "c: 1\n"}, "first")
	clone := t.TempDir()
	if _, err := run(clone, nil, "clone", "-q", s.URL, "."); err != nil {
		t.Fatal(err)
	}
	if got, err := run(clone, nil, "rev-parse", "HEAD"); err != nil || strings.TrimSpace(got) != id {
		t.Errorf("cloned %s, want %s (%v)", got, id, err)
	}
	if _, err := run(clone, nil, "-c", "user.name=a", "-c", "user.email=a", "commit", "-q", "--allow-empty", "-m", "second"); err != nil {
		t.Fatal(err)
	}
	if _, err := run(clone, nil, "push", "-q", "origin", "main"); err != nil {
		t.Fatal(err)
	}
	if got, err := run(s.Bare, nil, "log", "-1", "--format=%s", "main"); err != nil || got != "second\n" {
		t.Errorf("the server has %q (%v)", got, err)
	}
}

func TestCommitsAreTheSameInEveryRun(t *testing.T) {
	files := map[string]string{"a.yaml": "a: 1\n"}
	one, two := NewRepo(t).Commit(files, "first"), NewRepo(t).Commit(files, "first")
	if one != two || len(one) != 40 {
		t.Errorf("got %s and %s", one, two)
	}
}

func TestFaults(t *testing.T) {
	s := Start(t)
	s.Push(map[string]string{"a.yaml": ""}, "first")
	get := func() int {
		t.Helper()
		res, err := http.Get(s.URL + "/info/refs?service=git-upload-pack")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.StatusCode
	}
	if got := get(); got != 200 {
		t.Errorf("got %d, want 200", got)
	}
	s.Fail(Fault{Status: 500})
	if got := get(); got != 500 {
		t.Errorf("got %d, want 500", got)
	}
	s.Fail(Fault{})
	s.RequirePassword("ada", "secret")
	if got := get(); got != 401 {
		t.Errorf("got %d, want 401", got)
	}
	if got := len(s.Requests()); got != 3 {
		t.Errorf("counted %d requests, want 3", got)
	}
}
