package runtime

import (
	"os"
	"strings"
	"testing"
)

func TestProtect(t *testing.T) {
	score := func() string {
		data, err := os.ReadFile("/proc/self/oom_score_adj")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(data))
	}
	before := score()
	want := before
	if mayLowerOOMScore() {
		want = "-999"
	}
	if err := Protect(); err != nil {
		t.Fatal(err)
	}
	if got := score(); got != want {
		t.Errorf("score %s, want %s", got, want)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(before), 0o644); err != nil {
		t.Error(err)
	}
}
