// Package gitserver gives tests real git: work trees made by the git program, and a server that speaks git's HTTP
// protocol through git http-backend, with failures that can be switched on.
//
// It is for tests only and must not be imported by the product.
package gitserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Repo is a work tree. Authors and dates are fixed: the same commits have the same ids in every run.
type Repo struct {
	Dir string

	t       testing.TB
	commits int
}

// epoch is the date of a Repo's first commit; each further one is a minute later.
var epoch = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// NewRepo makes an empty repository with the branch main in a folder of the test.
func NewRepo(t testing.TB) *Repo {
	t.Helper()
	return NewRepoIn(t, t.TempDir())
}

// NewRepoIn makes an empty repository with the branch main in dir, which may hold files already.
func NewRepoIn(t testing.TB, dir string) *Repo {
	t.Helper()
	r := &Repo{Dir: dir, t: t}
	r.Git("init", "-q", "-b", "main")
	return r
}

// Write writes files below the work tree without committing them. The keys are slash-separated paths.
func (r *Repo) Write(files map[string]string) {
	r.t.Helper()
	for name, content := range files {
		name = filepath.Join(r.Dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
}

// Commit writes files, commits the whole work tree and returns the commit's id.
func (r *Repo) Commit(files map[string]string, message string) string {
	r.t.Helper()
	r.Write(files)
	r.Git("add", "-A")
	r.Git("commit", "-q", "--allow-empty", "-m", message)
	return r.Head()
}

// Remove deletes files and commits that.
func (r *Repo) Remove(message string, files ...string) string {
	r.t.Helper()
	for _, name := range files {
		if err := os.RemoveAll(filepath.Join(r.Dir, filepath.FromSlash(name))); err != nil {
			r.t.Fatal(err)
		}
	}
	return r.Commit(nil, message)
}

// Head returns the id of HEAD.
func (r *Repo) Head() string {
	r.t.Helper()
	return strings.TrimSpace(r.Git("rev-parse", "HEAD"))
}

// Git runs git in the work tree and returns what it printed. The test ends when git fails.
func (r *Repo) Git(args ...string) string {
	r.t.Helper()
	date := fmt.Sprintf("%d +0000", epoch.Add(time.Duration(r.commits)*time.Minute).Unix())
	if args[0] == "commit" {
		r.commits++
	}
	out, err := run(r.Dir, []string{"GIT_AUTHOR_DATE=" + date, "GIT_COMMITTER_DATE=" + date}, args...)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// run runs git without the user's configuration.
func run(dir string, env []string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.com", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.com",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}
