package local

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
)

// ignoreLimit bounds one ignore file.
const ignoreLimit = 1 << 20

// ignore applies .gitignore files as git does: those above the directory up to the repository's top, those inside,
// and .git/info/exclude. What HEAD tracks is not ignored.
type ignore struct {
	prefix   []string // of the directory inside the repository
	patterns []gitignore.Pattern
	head     *head
}

// newIgnore reads the rules above dir. top is "" outside a repository.
func newIgnore(top, dir string, h *head) *ignore {
	ig := &ignore{head: h}
	if top == "" {
		return ig
	}
	rel, err := filepath.Rel(top, dir)
	if err != nil || !filepath.IsLocal(rel) {
		return ig
	}
	ig.load(filepath.Join(top, ".git", "info", "exclude"), nil)
	if rel == "." {
		return ig
	}
	ig.prefix = strings.Split(filepath.ToSlash(rel), "/")
	for i := range ig.prefix {
		ig.load(filepath.Join(top, filepath.Join(ig.prefix[:i]...), ".gitignore"), ig.prefix[:i])
	}
	if ig.match(nil, true) { // somebody asked for an ignored directory: then its content is wanted
		ig.patterns = nil
	}
	return ig
}

// load reads an ignore file above the directory; it may be missing.
func (ig *ignore) load(name string, domain []string) {
	f, err := os.Open(name)
	if err != nil {
		return
	}
	defer f.Close()
	_ = ig.parse(f, domain) // an unreadable one ignores nothing
}

// enter adds the rules of a directory about to be listed.
func (ig *ignore) enter(root *os.Root, dir string) error {
	name := path.Join(dir, ".gitignore")
	f, err := root.OpenFile(name, openFlags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer f.Close()
	domain := ig.prefix
	if dir != "." {
		domain = append(domain[:len(domain):len(domain)], strings.Split(dir, "/")...)
	}
	return ig.parse(f, domain)
}

func (ig *ignore) parse(r io.Reader, domain []string) error {
	lines := bufio.NewScanner(io.LimitReader(r, ignoreLimit))
	for lines.Scan() {
		if line := lines.Text(); strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "#") {
			ig.patterns = append(ig.patterns, gitignore.ParsePattern(line, domain))
		}
	}
	return lines.Err()
}

// matches says whether a path below the directory is ignored.
func (ig *ignore) matches(name string, isDir bool) bool {
	if len(ig.patterns) == 0 || ig.head.tracks(name, isDir) {
		return false
	}
	return ig.match(strings.Split(name, "/"), isDir)
}

func (ig *ignore) match(name []string, isDir bool) bool {
	full := append(ig.prefix[:len(ig.prefix):len(ig.prefix)], name...)
	return gitignore.NewMatcher(ig.patterns).Match(full, isDir)
}
