package e2e

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-dev/slipway/testing/cluster"
	"github.com/slipway-dev/slipway/testing/images"
	"github.com/slipway-dev/slipway/testing/need"
)

// vault is a Pod with a Secret and its account's token in files.
const vault = `
apiVersion: v1
kind: Secret
metadata: {name: vault}
stringData: {password: "@VALUE@-correct-horse-battery-staple"}
---
apiVersion: v1
kind: Pod
metadata: {name: vault}
spec:
  serviceAccountName: default
  containers:
    - name: main
      image: test.local/testpod:1
      args: [serve]
      volumeMounts: [{name: secret, mountPath: /secret}, {name: mixed, mountPath: /mixed}]
  volumes:
    - name: secret
      secret: {secretName: vault}
    - name: mixed
      projected: {sources: [{secret: {name: vault}}, {serviceAccountToken: {path: token}}]}
`

// TestSecretsInFilesAreNowhereOnDisk uses a Secret as Pods do, changes it and its key, and then looks for it in every
// file of the data directory: as it is, in base64, and the token of the Pod.
func TestSecretsInFilesAreNowhereOnDisk(t *testing.T) {
	need.Runtime(t)
	image, err := images.Testpod(t.Context(), "test.local/testpod:1")
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "testpod.tar")
	if err := images.WriteArchive(archive, image); err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	save := func(value string) {
		if err := os.WriteFile(filepath.Join(tree, "vault.yaml"), []byte(strings.ReplaceAll(vault, "@VALUE@", value)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	save("1")
	s := cluster.Up(t, tree, "--images", archive, "--verbose")
	s.WaitOutput("everything is current", 1)
	file := func(path string) (string, error) {
		ip := s.Kubectl("get", "pod", "vault", "-o", "jsonpath={.status.podIP}")
		return get("http://" + ip + ":8080/file?path=" + path)
	}
	shown := func(value string) func() error {
		return func() error {
			text, err := file("/secret/password")
			if err == nil && text != value+"-correct-horse-battery-staple" {
				err = fmt.Errorf("the Pod reads %q", text)
			}
			return err
		}
	}
	s.Eventually("the Secret in the Pod", shown("1"))
	save("2")
	s.Eventually("the changed Secret in the Pod", shown("2"))
	token, err := file("/mixed/token")
	if err != nil || len(token) < 100 {
		t.Fatalf("the Pod's token is %q, %v", token, err)
	}
	nowhereIn(t, s.Data, token)
	if out, err := exec.Command(s.Binary, "rotate-key", "--data-dir", s.Data).CombinedOutput(); err != nil {
		t.Fatalf("rotate-key: %v\n%s", err, out)
	}
	s.Eventually("the Secret with a new key", shown("2"))
	s.Kill()
	nowhereIn(t, s.Data, token)
}

// nowhereIn looks through the files below a directory that are on its disk.
func nowhereIn(t *testing.T, dir, token string) {
	t.Helper()
	const secret = "-correct-horse-battery-staple"
	forms := [][]byte{[]byte(secret), []byte(token[strings.LastIndex(token, ".")+1:])} // a token's signature is its secret
	for before := range 3 {                                                            // base64 looks different at each place in a group of three bytes
		text := base64.StdEncoding.EncodeToString([]byte("012"[:before] + secret))
		forms = append(forms, []byte(text[4:len(text)-4]))
	}
	device := deviceOf(t, dir)
	read := 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil {
			return err
		}
		if entry.IsDir() && deviceOf(t, path) != device {
			return fs.SkipDir // in memory, or a container's view of what is looked at elsewhere
		}
		if !entry.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, form := range forms {
			if bytes.Contains(data, form) {
				t.Errorf("%s shows a Secret or a token: %q", path, form)
			}
		}
		read++
		return nil
	})
	if err != nil || read < 20 {
		t.Errorf("%d files were looked at, %v", read, err)
	}
}

// deviceOf returns the file system a path is on.
func deviceOf(t *testing.T, path string) uint64 {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return 0
		}
		t.Fatal(err)
	}
	return stat.Dev
}
