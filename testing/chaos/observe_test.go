package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/slipway-dev/slipway/testing/cluster"
)

// client is somebody outside slipway who may do everything, with a certificate of the cluster's own authority.
func client(t *testing.T, s *cluster.Slipway) *kubernetes.Clientset {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", s.Credential("chaos", "system:masters"))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS, config.Timeout = -1, 10*time.Second
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return api
}

// identities returns what must not change of the Pods with a label, a line each container: ids, start times, restart
// counts, addresses.
func (s *storm) identities(label string) []string {
	s.Helper()
	var lines []string
	s.slipway.Eventually("the Pods of "+label, func() error {
		lines = nil
		pods, err := s.api.CoreV1().Pods("steady").List(s.Context(), metav1.ListOptions{LabelSelector: label})
		if err != nil {
			return err
		}
		for _, pod := range pods.Items {
			for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
				if c.State.Waiting != nil {
					return fmt.Errorf("%s/%s waits: %s", pod.Name, c.Name, c.State.Waiting.Reason)
				}
				lines = append(lines, fmt.Sprintf("%s/%s restarts=%d %s at %s id %s", pod.Name, c.Name, c.RestartCount, pod.Status.PodIP, began(c.State), c.ContainerID))
			}
		}
		return nil
	})
	return sorted(lines)
}

// story is what is known of a container's Pod: how its containers ended before, and what the log says.
func (s *storm) story(line string) string {
	name, _, _ := strings.Cut(line, "/")
	var text strings.Builder
	if pod, err := s.api.CoreV1().Pods("steady").Get(s.Context(), name, metav1.GetOptions{}); err == nil {
		for _, c := range pod.Status.ContainerStatuses {
			fmt.Fprintf(&text, "%s ended before: %s\n", c.Name, c.LastTerminationState.String())
		}
	}
	log, _ := os.ReadFile(filepath.Join(s.slipway.Data, "slipway.log")) // absent: nothing is told
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, name) {
			text.WriteString(line)
		}
	}
	return text.String()
}

func began(state corev1.ContainerState) string {
	switch {
	case state.Running != nil:
		return state.Running.StartedAt.UTC().Format(time.RFC3339)
	case state.Terminated != nil:
		return fmt.Sprintf("%s until %s exit %d", state.Terminated.StartedAt.UTC().Format(time.RFC3339), state.Terminated.FinishedAt.UTC().Format(time.RFC3339), state.Terminated.ExitCode)
	}
	return "never"
}

// rolled says whether the workload that rolls is what the directory asks for, and nothing of it is left over.
func (s *storm) rolled() error {
	d, err := s.api.AppsV1().Deployments("steady").Get(s.Context(), "rolling", metav1.GetOptions{})
	if err != nil {
		return err
	}
	want := int32(s.pods)
	if got := d.Spec.Template.Annotations["version"]; got != strconv.Itoa(s.version) || *d.Spec.Replicas != want {
		return fmt.Errorf("stored: version %s × %d, want %d × %d", got, *d.Spec.Replicas, s.version, want)
	}
	if st := d.Status; st.ObservedGeneration != d.Generation || st.Replicas != want || st.UpdatedReplicas != want || st.ReadyReplicas != want {
		return fmt.Errorf("of %d replicas there are %d, %d updated, %d ready", want, st.Replicas, st.UpdatedReplicas, st.ReadyReplicas)
	}
	pods, err := s.api.CoreV1().Pods("steady").List(s.Context(), metav1.ListOptions{LabelSelector: "app=rolling"})
	if err == nil && len(pods.Items) != s.pods {
		return fmt.Errorf("there are %d Pods, want %d", len(pods.Items), s.pods)
	}
	return err
}

// allApplied says whether exactly the directory's ConfigMaps are in the cluster.
func (s *storm) allApplied() error {
	text, _ := os.ReadFile(filepath.Join(s.dir, "applied.yaml")) // none: none is wanted
	maps, err := s.api.CoreV1().ConfigMaps("steady").List(s.Context(), metav1.ListOptions{})
	if err != nil {
		return err
	}
	found := 0
	for _, m := range maps.Items {
		if !strings.HasPrefix(m.Name, "applied-") {
			continue
		}
		found++
		if want := fmt.Sprintf("name: %s, namespace: steady}\ndata: {version: %q}", m.Name, m.Data["version"]); !strings.Contains(string(text), want) {
			return fmt.Errorf("%s has version %s", m.Name, m.Data["version"])
		}
	}
	if found != s.applied {
		return fmt.Errorf("there are %d, want %d", found, s.applied)
	}
	return nil
}

// compact has etcd compact its history and defragment its file, and does not wait for it.
func (s *storm) compact() {
	socket := filepath.Join(s.slipway.Data, "etcd", "etcd.sock")
	ready := make(chan struct{})
	go func() {
		ctx, cancel := context.WithTimeout(s.Context(), 5*time.Second)
		defer cancel()
		etcd, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + socket}})
		if err != nil {
			close(ready)
			return
		}
		defer etcd.Close()
		now, err := etcd.Get(ctx, "/registry/namespaces/steady")
		close(ready)
		if err != nil {
			return // between two lives
		}
		_, _ = etcd.Compact(ctx, now.Header.Revision) // it is being killed
		_, _ = etcd.Defragment(ctx, "unix://"+socket)
	}()
	<-ready
}

// killContainerd kills the containerd of a data directory.
func killContainerd(t *testing.T, s *cluster.Slipway) {
	t.Helper()
	s.Eventually("containerd to kill", func() error {
		for _, p := range processes(t) {
			if filepath.Base(p.program) == "containerd" && strings.Contains(p.command, s.Data) {
				return syscall.Kill(p.pid, syscall.SIGKILL)
			}
		}
		return fmt.Errorf("it does not run")
	})
}
