package credential

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestRead(t *testing.T) {
	secret := &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(
		`{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"registry.example:5000/team":{"username":"a","password":"b"}}}`)}}
	got := map[string][2]string{}
	if err := Read(secret, got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][2]string{"docker.io": {"u", "p"}, "registry.example:5000": {"a", "b"}}, got); diff != "" {
		t.Errorf("credentials (-want +got):\n%s", diff)
	}
	secret.Data[corev1.DockerConfigJsonKey] = []byte(`{"auths":{"x":{"password":"hush`)
	if err := Read(secret, got); err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("error %v, want one that does not quote", err)
	}
}
