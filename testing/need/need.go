// Package need says what a test needs from the machine. A plain user's run skips what is missing and says so; with
// SLIPWAY_TEST_STRICT=1 (set by `make test`) a missing requirement fails the test.
package need

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Root needs root: namespaces, mounts, packet filter, containers.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "this test needs root")
	}
}

// Corpus returns the folder of real repositories, SLIPWAY_CORPUS or ../shared/corpus beside the checkout.
func Corpus(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("SLIPWAY_CORPUS")
	if dir == "" {
		dir = filepath.Join(ModuleRoot(), "..", "shared", "corpus")
	}
	if _, err := os.Stat(filepath.Join(dir, "repos")); err != nil {
		missing(t, "this test needs the corpus of real repositories: set SLIPWAY_CORPUS")
	}
	return dir
}

// Runtime returns the folder with containerd, runc and the shim, SLIPWAY_RUNTIME or bin/runtime of the checkout
// (`make bundle` builds it). It implies Root.
func Runtime(t testing.TB) string {
	t.Helper()
	Root(t)
	dir := os.Getenv("SLIPWAY_RUNTIME")
	if dir == "" {
		dir = filepath.Join(ModuleRoot(), "bin", "runtime")
	}
	if _, err := os.Stat(filepath.Join(dir, "containerd")); err != nil {
		missing(t, "this test needs the runtime bundle: run `make bundle`")
	}
	return dir
}

// Kubectls returns the kubectl binaries tests are run with, newest first: bin/kubectl and Debian's bin/kubectl-1.20
// (`make tools` provides them).
func Kubectls(t testing.TB) []string {
	t.Helper()
	var paths []string
	for _, name := range []string{"kubectl", "kubectl-1.20"} {
		path := filepath.Join(ModuleRoot(), "bin", name)
		if _, err := os.Stat(path); err != nil {
			missing(t, "this test needs bin/"+name+": run `make tools`")
		}
		paths = append(paths, path)
	}
	return paths
}

// ModuleRoot returns the checkout's top folder.
func ModuleRoot() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("SLIPWAY_TEST_STRICT") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}
