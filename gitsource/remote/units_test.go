package remote

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
)

func TestURLs(t *testing.T) {
	for text, want := range map[string]string{
		"https://git.example.com/shop.git":            "https://git.example.com/shop.git",
		"https://ada:secret@git.example.com:8443/a/b": "https://git.example.com:8443/a/b",
		"https://secret@git.example.com/a":            "https://git.example.com/a",
		"http://[::1]:3000/a":                         "http://[::1]:3000/a",
		"ssh://git@git.example.com:2222/a.git":        "ssh://git.example.com:2222/a.git",
		"git@git.example.com:ada/shop.git":            "ssh://git.example.com/ada/shop.git",
		"/srv/git/shop.git":                           "/srv/git/shop.git",
		"ada:secret@git.example.com/a":                "want the scheme written out",
		"https:/ada:secret@git.example.com/a":         "want the scheme written out",
		"file:///srv/git/../git/shop.git":             "/srv/git/shop.git",
		"":                                            "repository URL is empty",
		"--upload-pack=touch /tmp/x":                  "begins with a dash",
		"-oProxyCommand=x":                            "begins with a dash",
		"ext::sh -c touch% /tmp/x":                    "white space",
		"ext::sh":                                     "names a program to run",
		"fd::17/x":                                    "names a program to run",
		"ssh://-oProxyCommand=x/a":                    "begins with a dash",
		"ssh://-ox@git.example.com/a":                 "begins with a dash",
		"-x@git.example.com:a":                        "begins with a dash",
		"git@-oProxyCommand=x:a":                      "begins with a dash",
		"git@git.example.com:--upload-pack=x":         "begins with a dash",
		"https://git.example.com/--upload-pack=x":     "begins with a dash",
		"https://git.example.com":                     "a path is missing",
		"https:///a":                                  "names no host",
		"git://git.example.com/a":                     `scheme "git"`,
		"ftp://git.example.com/a":                     `scheme "ftp"`,
		"file://host/a":                               "absolute path on this machine",
		"./shop":                                      "not understood",
		"shop":                                        "not understood",
		"https://git.example.com/a?token=secret":      "query or fragment",
		"https://git.example.com/a#secret":            "query or fragment",
		"https://ada:secret@git.example.com:99999/a":  "port",
		"https://ada:secret@git.exa mple.com/a":       "white space",
		"https://ada:secret%zz@git.example.com/a":     "cannot be parsed",
		"https://git.example.com/a\n--upload-pack=x":  "control characters",
	} {
		a, err := parse(text)
		got := a.String()
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != want || !strings.Contains(got, want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
		if strings.Contains(got, "secret") {
			t.Errorf("%q: shown: %q", text, got)
		}
	}
}

func TestSecretsAreRedactedHoweverEscaped(t *testing.T) {
	for _, url := range []string{"https://ada:p%2Fw%20d@example.com/x", "https://p%2Fw%20d@example.com/x"} {
		a, err := parse(url)
		if err != nil {
			t.Fatal(err)
		}
		got := a.redact("get https://ada:p%2Fw%20d@example.com, p/w d, p%2Fw+d by ada")
		if strings.Contains(got, "p/w") || strings.Contains(got, "p%2F") {
			t.Errorf("%s", got)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{
		{URL: "/x", Path: "../y"}, {URL: "/x", Path: "/y"}, {URL: "/x", Path: "a/../../y"}, {URL: "/x", Branch: "-x"}, {URL: "/x", Branch: "a b"}, {URL: "/x", Branch: "a..b"}, {URL: "x"},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

// pack makes a pack of raw entries: header bytes and inflated data.
func pack(entries ...[2][]byte) []byte {
	var b bytes.Buffer
	b.WriteString("PACK")
	_ = binary.Write(&b, binary.BigEndian, []uint32{2, uint32(len(entries))})
	for _, e := range entries {
		b.Write(e[0])
		z := zlib.NewWriter(&b)
		_, _ = z.Write(e[1])
		_ = z.Close()
	}
	sum := sha1.Sum(b.Bytes())
	return append(b.Bytes(), sum[:]...)
}

var emptyPack = string(pack())

// entry makes the header of an object that says it has size bytes.
func entry(kind plumbing.ObjectType, size int64) []byte {
	first := byte(kind)<<4 | byte(size&15)
	var b []byte
	for size >>= 4; size > 0; size >>= 7 {
		b = append(b, first|0x80)
		first = byte(size & 0x7f)
	}
	return append(b, first)
}

func delta(base, result uint64, rest ...byte) []byte {
	return append(binary.AppendUvarint(binary.AppendUvarint(nil, base), result), rest...)
}

func TestPacksAreLookedThrough(t *testing.T) {
	const large = maxObjectBytes + 1
	small := [2][]byte{entry(plumbing.BlobObject, 5), []byte("hello")}
	bomb := delta(5, 1<<40, 0x90, 5)
	liar := delta(5, 1<<63, 0x90, 5)
	offset := func(e []byte, back byte) []byte { return append(e, back) }
	for name, tt := range map[string]struct {
		pack []byte
		want string
	}{
		"good":             {pack(small, small), ""},
		"none":             {pack(), ""},
		"large object":     {pack([2][]byte{entry(plumbing.BlobObject, large), []byte("refused before it is read")}), "too large"},
		"lying about size": {pack([2][]byte{entry(plumbing.BlobObject, 5), make([]byte, 1<<20)}), "read pack"},
		"delta bomb":       {pack(small, [2][]byte{offset(entry(plumbing.OFSDeltaObject, int64(len(bomb))), 14), bomb}), "too large"},
		"overflowing":      {pack(small, [2][]byte{offset(entry(plumbing.OFSDeltaObject, int64(len(liar))), 14), liar}), "malformed delta"},
		"too many objects": {[]byte("PACK\x00\x00\x00\x02\xff\xff\xff\xff"), "too large"},
		"cut off":          {pack(small)[:20], "read pack"},
		"not a pack":       {[]byte("hello"), "read pack"},
	} {
		err := checkPack(bytes.NewReader(tt.pack))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

func TestLongDeltaChainsAreRefused(t *testing.T) {
	c := packCheck{chains: map[int64]int{}}
	var err error
	for i := int64(1); err == nil && i < 100_000; i++ {
		err = c.header(header(plumbing.OFSDeltaObject, i, i-1))
	}
	if err == nil || len(c.chains) > maxChain+1 {
		t.Errorf("a chain of %d is accepted: %v", len(c.chains), err)
	}
}

// commitOf stores a commit of a tree and returns its id.
func commitOf(t *testing.T, c *cache, tree plumbing.Hash) plumbing.Hash {
	t.Helper()
	return stored(t, c, plumbing.CommitObject, []byte(fmt.Sprintf("tree %s\nauthor a <a> 0 +0000\ncommitter a <a> 0 +0000\n\nx\n", tree)))
}

func stored(t *testing.T, c *cache, kind plumbing.ObjectType, data []byte) plumbing.Hash {
	t.Helper()
	o := c.store.NewEncodedObject()
	o.SetType(kind)
	w, err := o.Writer()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	id, err := c.store.SetEncodedObject(o)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func treeOf(t *testing.T, c *cache, entries ...object.TreeEntry) plumbing.Hash {
	t.Helper()
	var b bytes.Buffer
	for _, e := range entries {
		fmt.Fprintf(&b, "%o %s\x00%s", uint32(e.Mode), e.Name, e.Hash[:])
	}
	return stored(t, c, plumbing.TreeObject, b.Bytes())
}

func TestHostileTrees(t *testing.T) {
	c, err := openCache(t.TempDir(), "https://example.com/x", "")
	if err != nil {
		t.Fatal(err)
	}
	blob := stored(t, c, plumbing.BlobObject, []byte("a: 1\n"))
	file := func(name string) object.TreeEntry {
		return object.TreeEntry{Name: name, Mode: filemode.Regular, Hash: blob}
	}
	bomb := treeOf(t, c, file("a.yaml"))
	deep := bomb
	for range 10 {
		var entries []object.TreeEntry
		for i := range 10 {
			entries = append(entries, object.TreeEntry{Name: fmt.Sprint("d", i), Mode: filemode.Dir, Hash: bomb})
		}
		bomb = treeOf(t, c, entries...)
	}
	for range 200 {
		deep = treeOf(t, c, object.TreeEntry{Name: "d", Mode: filemode.Dir, Hash: deep})
	}
	for name, tt := range map[string]struct {
		tree plumbing.Hash
		want string
	}{
		"bomb":         {bomb, "too many"},
		"deep":         {deep, "nested too deeply"},
		"parent":       {treeOf(t, c, file("..")), `name ".." is not allowed`},
		"slash":        {treeOf(t, c, file("x/../../y.yaml")), "is not allowed"},
		"backslash":    {treeOf(t, c, file("x\\y.yaml")), "is not allowed"},
		"missing blob": {treeOf(t, c, object.TreeEntry{Name: "a.yaml", Mode: filemode.Regular, Hash: plumbing.NewHash(strings.Repeat("b", 40))}), "object not found"},
		"missing tree": {plumbing.NewHash(strings.Repeat("c", 40)), "object not found"},
		"a blob":       {blob, ""},
	} {
		snap, _, err := c.read(commitOf(t, c, tt.tree), "")
		if err == nil || !strings.Contains(err.Error(), tt.want) || snap != nil {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

func header(kind plumbing.ObjectType, offset, base int64) *packfile.ObjectHeader {
	return &packfile.ObjectHeader{Type: kind, Offset: offset, OffsetReference: base, Length: 1}
}
