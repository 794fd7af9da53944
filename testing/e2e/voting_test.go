package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-dev/slipway/testing/cluster"
	"github.com/slipway-dev/slipway/testing/gitserver"
	"github.com/slipway-dev/slipway/testing/images"
	"github.com/slipway-dev/slipway/testing/images/voting"
	"github.com/slipway-dev/slipway/testing/isolated"
	"github.com/slipway-dev/slipway/testing/need"
)

const (
	ballot = "http://127.0.0.1:31000/"
	scores = "http://127.0.0.1:31001/scores"
)

// votingRepository serves the app's repository as it is in the corpus, committed.
func votingRepository(t *testing.T) *gitserver.Server {
	t.Helper()
	server := gitserver.Start(t)
	from := filepath.Join(need.Corpus(t), "repos", "dockersamples+example-voting-app")
	if err := os.CopyFS(server.Dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	server.Push(nil, "Let them vote")
	return server
}

// votingRegistry serves the app's images and returns the registry's address.
func votingRegistry(t *testing.T) string {
	t.Helper()
	registry, err := images.ServeRegistry("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { registry.Close() })
	made, err := voting.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Push(t.Context(), made...); err != nil {
		t.Fatal(err)
	}
	return registry.URL()
}

// voter is a browser with cookies of its own.
func voter(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
}

// cast votes; it must be taken at once.
func cast(t *testing.T, who *http.Client, address, vote string) {
	t.Helper()
	if _, err := body(who.PostForm(address, url.Values{"vote": {vote}})); err != nil {
		t.Fatalf("vote for %s at %s: %v", vote, address, err)
	}
}

type score struct{ A, B int }

// counted returns a check that the result is want.
func counted(want score) func() error {
	return func() error {
		text, err := get(scores)
		if err != nil {
			return err
		}
		var got score
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("the result is %+v, want %+v", got, want)
		}
		return nil
	}
}

// TestVotingApp runs Docker's example voting app from its own repository: a vote goes from vote through redis and
// worker to db, each found by its Service's name, and is read in result.
func TestVotingApp(t *testing.T) {
	need.Runtime(t)
	repository := votingRepository(t)
	s := cluster.Up(t, repository.URL, "--path", "k8s-specifications", "--registry-mirror", "docker.io="+votingRegistry(t))
	s.WaitOutput("everything is current", 1)
	s.Eventually("no votes", counted(score{}))

	first, second := voter(t), voter(t)
	t.Run("a vote is read in the result", func(t *testing.T) {
		cast(t, first, ballot, "a")
		s.Eventually("a vote for cats", counted(score{A: 1}))
		s.Eventually("the page", shows("http://127.0.0.1:31001/", "Cats 1, dogs 0"))
	})
	t.Run("a vote on the node's address counts", func(t *testing.T) {
		cast(t, second, "http://"+isolated.NodeIP+":31000/", "b")
		s.Eventually("a vote for dogs", counted(score{A: 1, B: 1}))
	})
	t.Run("a voter may change their mind", func(t *testing.T) {
		cast(t, first, ballot, "b")
		s.Eventually("both votes for dogs", counted(score{B: 2}))
	})
	t.Run("the parts find each other by name", func(t *testing.T) {
		for _, c := range []struct{ part, service, port string }{{"worker", "redis", "6379"}, {"worker", "db", "5432"}, {"result", "db", "5432"}} {
			address := s.Kubectl("get", "service", c.service, "-o", "jsonpath={.spec.clusterIP}")
			want := fmt.Sprintf("connected to %s at %s:%s", c.service, address, c.port)
			if log := s.Kubectl("logs", "deploy/"+c.part); !strings.Contains(log, want) {
				t.Errorf("the log of %s lacks %q:\n%s", c.part, want, log)
			}
		}
	})
	t.Run("redis and PostgreSQL are the real ones", func(t *testing.T) {
		for part, want := range map[string]string{"redis": "Ready to accept connections", "db": "database system is ready to accept connections"} {
			if log := s.Kubectl("logs", "deploy/"+part); !strings.Contains(log, want) {
				t.Errorf("the log of %s lacks %q:\n%s", part, want, log)
			}
		}
	})
	t.Run("nothing was restarted or passed over", func(t *testing.T) {
		if out := s.Kubectl("get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}"); out != "0 0 0 0 0" {
			t.Errorf("restarts of the Pods: %s, want none of five", out)
		}
		if strings.Contains(s.Output(), "not acted on") {
			t.Errorf("slipway printed:\n%s", s.Output())
		}
	})
}
