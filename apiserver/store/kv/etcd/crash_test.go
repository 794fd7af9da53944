package etcd

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/slipway-dev/slipway/apiserver/store/kv"
)

// crashDir tells the test binary to be the process that is killed: it writes to this directory and prints each key
// with its revision when the write has been acknowledged.
const crashDir = "SLIPWAY_TEST_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func writeUntilKilled(dir string) error {
	b, err := Open(context.Background(), Config{Dir: dir})
	if err != nil {
		return err
	}
	failed := make(chan error)
	for w := range 32 {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("/%d/%d", w, i)
				revision, err := b.Txn(context.Background(), []kv.Op{{Verb: kv.Put, Key: key, Value: make([]byte, 500)}})
				if err != nil {
					failed <- err
					return
				}
				fmt.Printf("%s %d\n", key, revision)
			}
		}()
	}
	return <-failed
}

func TestKilledServerKeepsWhatItAcknowledged(t *testing.T) {
	dir := t.TempDir()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), crashDir+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	acknowledged := map[string]uint64{}
	var newest uint64
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var key string
		var revision uint64
		if n, err := fmt.Sscanf(lines.Text()+"\n", "%s %d\n", &key, &revision); n != 2 || err != nil {
			break // cut off by the kill
		}
		acknowledged[key] = revision
		newest = max(newest, revision)
		if len(acknowledged) == 1000 {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := child.Wait(); err == nil {
		t.Fatal("the process ended by itself")
	}
	check(t, dir, acknowledged, newest)
}

func check(t *testing.T, dir string, acknowledged map[string]uint64, newest uint64) {
	t.Helper()
	b := open(t, dir)
	page, err := b.Range(t.Context(), kv.Range{})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]uint64{}
	for _, e := range page.Entries {
		found[e.Key] = e.Revision
	}
	for key, revision := range acknowledged {
		if found[key] != revision {
			t.Errorf("%s was acknowledged at revision %d, found at %d", key, revision, found[key])
		}
	}
	if len(acknowledged) == 0 || page.Revision < newest {
		t.Errorf("%d writes were acknowledged, the last at revision %d; the revision is %d", len(acknowledged), newest, page.Revision)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
