package logs

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-dev/slipway/nodeagent/lifecycle"
)

func pod(statuses ...corev1.ContainerStatus) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", UID: "u1"}}
	for _, s := range statuses {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: s.Name})
	}
	p.Status.ContainerStatuses = statuses
	return p
}

func running(name string, restarts int32) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, RestartCount: restarts, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
}

func last(s corev1.ContainerStatus, attempt int) corev1.ContainerStatus {
	s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ContainerID: lifecycle.ContainerIDPrefix + lifecycle.ContainerID("u1", s.Name, attempt)}
	return s
}

func waiting(name, reason string, restarts int32) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, RestartCount: restarts, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}
}

const day = "2030-01-01T00:00:"

// put writes lines "SS stream TAG text" as a log file.
func put(t *testing.T, root, name string, lines ...string) {
	t.Helper()
	path := filepath.Join(root, "shop_web_u1", "main", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, l := range lines {
		text.WriteString(day + l[:2] + ".5Z" + l[2:] + "\n")
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLogs(t *testing.T) {
	root := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for i, name := range []string{"1.log.20300101-000000", "1.log.20300101-000001"} {
		put(t, root, name, fmt.Sprintf("0%d stdout F rotated %d", i, i))
		// The clock was set back meanwhile: names tell the order, not times.
		if err := os.Chtimes(filepath.Join(root, "shop_web_u1", "main", name), old, old.Add(-time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	put(t, root, "1.log", "10 stdout F one", "11 stdout P par", "12 stderr F err", "13 stdout F tial", "14 stdout F ", "15 stdout F last")
	put(t, root, "0.log", "01 stdout F before")
	put(t, root, "1.log.1", "00 stdout F of somebody else")
	n := func(i int64) *int64 { return &i }
	stderr := corev1.LogStreamStderr
	all := "rotated 0\nrotated 1\none\nerr\npartial\n\nlast\n"
	cases := []struct {
		name string
		opts corev1.PodLogOptions
		want string
	}{
		{"everything, rotated first, pieces joined", corev1.PodLogOptions{}, all},
		{"tail", corev1.PodLogOptions{TailLines: n(2)}, "\nlast\n"},
		{"tail over files", corev1.PodLogOptions{TailLines: n(6)}, "rotated 1\none\nerr\npartial\n\nlast\n"},
		{"tail more than there is", corev1.PodLogOptions{TailLines: n(100)}, all},
		{"tail nothing", corev1.PodLogOptions{TailLines: n(0)}, ""},
		{"bytes", corev1.PodLogOptions{LimitBytes: n(12)}, "rotated 0\nro"},
		{"no bytes", corev1.PodLogOptions{LimitBytes: n(0)}, ""},
		{"since", corev1.PodLogOptions{SinceTime: &metav1.Time{Time: time.Date(2030, 1, 1, 0, 0, 14, 0, time.UTC)}}, "\nlast\n"},
		{"times", corev1.PodLogOptions{Timestamps: true, TailLines: n(1)}, "2030-01-01T00:00:15.5Z last\n"},
		{"one stream", corev1.PodLogOptions{Stream: &stderr}, "err\n"},
		{"previous", corev1.PodLogOptions{Previous: true}, "before\n"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			r := New(root, func(string) bool { return false })
			log, err := r.Logs(t.Context(), pod(last(running("main", 1), 0)), &tc.opts)
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			got, err := io.ReadAll(log)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, string(got)); diff != "" {
				t.Errorf("log (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLogsSaysWhyNot(t *testing.T) {
	cases := []struct {
		name string
		pod  *corev1.Pod
		opts corev1.PodLogOptions
		want string
	}{
		{"creating", pod(waiting("main", "ContainerCreating", 0)), corev1.PodLogOptions{}, `container "main" in pod "web" is waiting to start: ContainerCreating`},
		{"no image", pod(waiting("main", "ImagePullBackOff", 0)), corev1.PodLogOptions{}, `container "main" in pod "web" is waiting to start: trying and failing to pull image`},
		{"no previous", pod(running("main", 0)), corev1.PodLogOptions{Previous: true}, `previous terminated container "main" in pod "web" not found`},
		{"several", pod(running("a", 0), running("b", 0)), corev1.PodLogOptions{}, "a container name must be specified for pod web, choose one of: [a b]"},
		{"unknown", pod(running("a", 0)), corev1.PodLogOptions{Container: "x"}, "container x is not valid for pod web"},
		{"no status yet", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main"}}}}, corev1.PodLogOptions{}, `container "main" in pod "web" is not available`},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			_, err := New(t.TempDir(), nil).Logs(t.Context(), tc.pod, &tc.opts)
			if err == nil || err.Error() != tc.want {
				t.Errorf("error %v, want %s", err, tc.want)
			}
		})
	}
}

func TestLogsOfACrashLoopAreThoseOfTheLastAttempt(t *testing.T) {
	root := t.TempDir()
	put(t, root, "3.log", "01 stdout F third")
	for _, previous := range []bool{false, true} {
		log, err := New(root, func(string) bool { return false }).Logs(t.Context(), pod(last(waiting("main", "CrashLoopBackOff", 3), 3)), &corev1.PodLogOptions{Previous: previous})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(log); string(got) != "third\n" {
			t.Errorf("previous %v: log %q", previous, got)
		}
	}
}

// rotator writes numbered lines as the shim does, beginning a new file again and again and keeping five.
type rotator struct {
	path  string
	every int
	names []string
}

func (r *rotator) write(lines int) error {
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	for i := range lines {
		if i%r.every == r.every-1 {
			f.Close()
			r.names = append(r.names, fmt.Sprintf("%s.20300101-000000-%03d", r.path, len(r.names)+1))
			if err := os.Rename(r.path, r.names[len(r.names)-1]); err != nil {
				return err
			}
			if f, err = os.OpenFile(r.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
				return err
			}
			if n := len(r.names) - 5; n >= 0 {
				_ = os.Remove(r.names[n])
			}
		}
		if _, err := fmt.Fprintf(f, "%s01Z stdout F %d\n", day, i); err != nil {
			return err
		}
	}
	return nil
}

func TestFollowSeesEveryLineThroughRotation(t *testing.T) {
	root := t.TempDir()
	put(t, root, "0.log")
	var alive atomic.Bool
	alive.Store(true)
	log, err := New(root, func(string) bool { return alive.Load() }).Logs(t.Context(), pod(running("main", 0)), &corev1.PodLogOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	const lines = 5000
	written := make(chan error, 1)
	go func() {
		defer alive.Store(false)
		r := rotator{path: filepath.Join(root, "shop_web_u1", "main", "0.log"), every: 1100}
		written <- r.write(lines)
	}()
	scanner := bufio.NewScanner(log)
	want := 0
	for ; scanner.Scan(); want++ {
		if scanner.Text() != fmt.Sprint(want) {
			t.Fatalf("line %q, want %d", scanner.Text(), want)
		}
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if want != lines {
		t.Errorf("%d lines, want %d; %v", want, lines, scanner.Err())
	}
}

// A file may be rotated between being listed and being opened, and the oldest removed: what is read has no gap.
func TestReadingWhileRotatedHasNoGap(t *testing.T) {
	root := t.TempDir()
	put(t, root, "0.log")
	done := make(chan error, 1)
	go func() {
		r := rotator{path: filepath.Join(root, "shop_web_u1", "main", "0.log"), every: 20}
		done <- r.write(60_000)
	}()
	reader := New(root, func(string) bool { return true })
	for reads := 0; ; reads++ {
		select {
		case err := <-done:
			if err != nil || reads == 0 {
				t.Errorf("%d readings: %v", reads, err)
			}
			return
		default:
		}
		log, err := reader.Logs(t.Context(), pod(running("main", 0)), &corev1.PodLogOptions{})
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(log)
		if err != nil {
			continue // rotated a hundred times meanwhile, which it says
		}
		numbers := strings.Fields(string(text))
		for i := 1; i < len(numbers); i++ {
			a, _ := strconv.Atoi(numbers[i-1])
			if b, err := strconv.Atoi(numbers[i]); err != nil || b != a+1 {
				t.Fatalf("after %d readings %s follows %s", reads, numbers[i], numbers[i-1])
			}
		}
	}
}

// What others do to a file neither repeats lines nor ends the reading.
func TestFollowThroughWhatOthersDo(t *testing.T) {
	cases := map[string]func(path string) error{
		"removed": os.Remove,
		"renamed": func(path string) error { return os.Rename(path, path+".1") },
		"emptied": func(path string) error { return os.Truncate(path, 0) },
	}
	for name, do := range cases {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, "0.log.20300101-000000", "00 stdout F rotated")
			put(t, root, "0.log", "01 stdout F one", "02 stdout F two")
			log, err := New(root, func(string) bool { return true }).Logs(t.Context(), pod(running("main", 0)), &corev1.PodLogOptions{Follow: true})
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			lines := bufio.NewScanner(log)
			next := func(want string) {
				t.Helper()
				if !lines.Scan() || lines.Text() != want {
					t.Fatalf("line %q, want %q (%v)", lines.Text(), want, lines.Err())
				}
			}
			next("rotated")
			next("one")
			next("two")
			path := filepath.Join(root, "shop_web_u1", "main", "0.log")
			if err := do(path); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := fmt.Fprintf(f, "%s03Z stdout F three\n", day); err != nil {
				t.Fatal(err)
			}
			next("three")
		})
	}
}

// A reader that does not follow gets what was there, however much is added while it reads.
func TestReadingEndsWhileTheContainerWrites(t *testing.T) {
	root := t.TempDir()
	put(t, root, "0.log", slices.Repeat([]string{"01 stdout F there"}, 100_000)...)
	log, err := New(root, func(string) bool { return true }).Logs(t.Context(), pod(running("main", 0)), &corev1.PodLogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(log, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(root, "shop_web_u1", "main", "0.log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "%s03Z stdout F later\n", day); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(log)
	if err != nil || len(text) != 100_000*len("there\n")-10 || strings.Contains(string(text), "later") {
		t.Errorf("read %d bytes, %v", len(text), err)
	}
}

// The end of a long file is found from its end, and is the same as when the whole file is read.
func TestTailOfALongFile(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var text bytes.Buffer
	for text.Len() < 3<<20 {
		fmt.Fprintf(&text, "%s00Z %s %s %s\n", day, []string{"stdout", "stderr"}[random.IntN(2)], []string{"P", "F", "F"}[random.IntN(3)], strings.Repeat("x", random.IntN(200)))
	}
	f := bytes.NewReader(text.Bytes())
	all, _, err := scan(f, 0, f.Size(), -1)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{1, 2, 10, 1000, all - 1, all} {
		_, want, err := scan(f, 0, f.Size(), all-n)
		if err != nil {
			t.Fatal(err)
		}
		offset, found, err := tailStart(f, f.Size(), n)
		if offset != want || found != n || err != nil {
			t.Errorf("the last %d of %d lines: %d lines from %d, %v; want %d", n, all, found, offset, err, want)
		}
	}
	if offset, found, _ := tailStart(f, f.Size(), all+1); offset != 0 || found != all {
		t.Errorf("more lines than there are: %d from %d", found, offset)
	}
}

func TestFollowWaitsForTheFileAndEndsWhenClosed(t *testing.T) {
	root := t.TempDir()
	log, err := New(root, func(string) bool { return true }).Logs(t.Context(), pod(running("main", 0)), &corev1.PodLogOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	put(t, root, "0.log", "01 stdout F hello")
	got := make([]byte, 6)
	if _, err := io.ReadFull(log, got); err != nil || string(got) != "hello\n" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := log.Close(); err != nil {
		t.Error(err)
	}
}

func TestLogsDoesNotFollowLinksOutOfTheRoot(t *testing.T) {
	root, outside := t.TempDir(), filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte(day+"01Z stdout F secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, root, "1.log", "01 stdout F x")
	if err := os.Symlink(outside, filepath.Join(root, "shop_web_u1", "main", "0.log")); err != nil {
		t.Fatal(err)
	}
	log, err := New(root, func(string) bool { return false }).Logs(t.Context(), pod(running("main", 0)), &corev1.PodLogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(log); len(got) > 0 {
		t.Errorf("read %q through a link", got)
	}
}
