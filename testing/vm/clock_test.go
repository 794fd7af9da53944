//go:build vm

package vm

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// visitor is deployed while the clock is wrong.
const visitor = `
apiVersion: v1
kind: Pod
metadata: {name: visitor, namespace: vm}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: test.local/testpod:1, args: [sleep]}
`

// clock sets the wall clock while everything runs. People whose clock is the machine's reach the API with the kubeconfig
// as it is then; Pods stay, and new ones come and go.
func clock(t *testing.T, m *Machine) {
	before, slipway := m.allReady(), m.service()
	off := time.Duration(0)
	for _, days := range []int{370, -370, -370, 370} {
		m.Run("date", "--set", fmt.Sprintf("%d days", days))
		off += time.Duration(days) * 24 * time.Hour
		m.Put(manifests+"/visitor.yaml", []byte(visitor))
		m.Eventually(fmt.Sprintf("the visitor runs with the clock %s off", off), func() error { return m.visitorIs("Running", off) })
		m.Run("rm", manifests+"/visitor.yaml")
		m.Eventually(fmt.Sprintf("the visitor has gone with the clock %s off", off), func() error { return m.visitorIs("", off) })
	}
	m.readKubeconfig()
	if diff := cmp.Diff(before, m.allReady()); diff != "" {
		t.Errorf("Pods changed with the clock:\n%s", diff)
	}
	if now := m.service(); now != slipway {
		t.Errorf("slipway was process %s and is %s", slipway, now)
	}
}

// visitorIs asks for the visitor as a person with the machine's kubeconfig, whose clock is as far off as the machine's.
func (m *Machine) visitorIs(want corev1.PodPhase, off time.Duration) error {
	m.readKubeconfig()
	config, err := clientcmd.BuildConfigFromFlags("", m.kubeconfig())
	if err != nil {
		return err
	}
	secure, err := rest.TLSConfigFor(config)
	if err != nil {
		return err
	}
	secure.Time = func() time.Time { return time.Now().Add(off) }
	person := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: secure, DisableKeepAlives: true}}
	response, err := person.Get(config.Host + "/api/v1/namespaces/vm/pods")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var pods corev1.PodList
	if err := json.NewDecoder(response.Body).Decode(&pods); err != nil {
		return err
	}
	var got corev1.PodPhase
	for _, p := range pods.Items {
		if p.Name == "visitor" {
			got = p.Status.Phase
		}
	}
	if got != want || len(pods.Items) == 0 {
		return fmt.Errorf("%s: it is %q", response.Status, got)
	}
	return nil
}
