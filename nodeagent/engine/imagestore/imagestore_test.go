package imagestore

import (
	"io/fs"
	"testing"
	"testing/fstest"
)

func TestFind32(t *testing.T) {
	program := func(class byte, mode uint32) fstest.MapFS {
		return fstest.MapFS{
			"bin/x":    {Data: append([]byte("\x7fELF"), class, 0), Mode: fs.FileMode(mode)},
			"bin/s":    {Data: []byte("#!"), Mode: 0o755},
			"etc/conf": {Data: []byte("\x7fELF\x01"), Mode: 0o644},
		}
	}
	for name, tt := range map[string]struct {
		files fstest.MapFS
		want  bool
	}{
		"64-bit program":      {program(2, 0o755), false},
		"32-bit program":      {program(1, 0o755), true},
		"32-bit, no program":  {program(1, 0o644), false},
		"nothing in the file": {fstest.MapFS{"x": {Mode: 0o755}}, false},
	} {
		if got, err := find32(tt.files); got != tt.want || err != nil {
			t.Errorf("%s: got %v (%v), want %v", name, got, err, tt.want)
		}
	}
}

func TestSplitMirror(t *testing.T) {
	for mirror, want := range map[string]string{
		"http://10.0.0.1:5000":     "http 10.0.0.1:5000 /v2",
		"https://mirror.local/hub": "https mirror.local /v2/hub",
		"mirror.local":             "https mirror.local /v2",
	} {
		scheme, host, path := splitMirror(mirror)
		if got := scheme + " " + host + " " + path; got != want {
			t.Errorf("%s is %s, want %s", mirror, got, want)
		}
	}
}
