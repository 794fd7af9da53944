package logs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
)

func TestOwnedFindsOnlyWhatTheOwnerMade(t *testing.T) {
	root := t.TempDir()
	mine, theirs, foreign := filepath.Join(root, "shop_web_u1"), filepath.Join(root, "shop_web_u2"), filepath.Join(root, "kube_x_u3")
	for dir, owner := range map[string]string{mine: "/var/lib/a", theirs: "/var/lib/b"} {
		for range 2 {
			if err := Claim(dir, owner); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Mkdir(foreign, 0o755); err != nil {
		t.Fatal(err)
	}
	got, err := Owned(root, "/var/lib/a")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[types.UID]string{"u1": mine}, got); diff != "" {
		t.Errorf("owned (-want +got):\n%s", diff)
	}
	if none, err := Owned(filepath.Join(root, "missing"), "/var/lib/a"); err != nil || len(none) != 0 {
		t.Errorf("without a folder: %v, %v", none, err)
	}
}
