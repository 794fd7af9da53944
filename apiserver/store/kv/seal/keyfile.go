package seal

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// keys are the keys of a file: the first writes, all read.
type keys []key

func (ks keys) has(wanted id) bool {
	for _, k := range ks {
		if k.id() == wanted {
			return true
		}
	}
	return false
}

// keyFile is where the keys are kept. It is replaced as a whole, so a reader finds one state or the next.
type keyFile struct {
	path string
	disk disk
}

// disk is what a keyFile needs of the file system; both calls are durable when they return.
type disk interface {
	write(path string, data []byte) error
	rename(from, to string) error
}

func keyFileAt(path string) keyFile { return keyFile{path: path, disk: files{}} }

// read returns the keys. A missing file is fs.ErrNotExist.
func (f keyFile) read() (keys, error) {
	info, err := os.Lstat(f.path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the keys of Secrets: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s holds the keys of all Secrets and must be a plain file, not a %s", f.path, info.Mode().Type())
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s holds the keys of all Secrets and others may read or change it (mode %#o): run chmod 600 %s; who may have read it makes slipway rotate-key worth while",
			f.path, info.Mode().Perm(), f.path)
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return nil, fmt.Errorf("read the keys of Secrets: %w", err)
	}
	return f.parse(data)
}

// parse reads lines of a key's id and the key in base64. Errors quote no line: it may be a key.
func (f keyFile) parse(data []byte) (keys, error) {
	var found keys
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, text, _ := strings.Cut(line, " ")
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
		var k key
		if err != nil || len(raw) != len(k) {
			return nil, fmt.Errorf("%s:%d: want the id of a key and %d bytes in base64: put the file back from a copy", f.path, n, len(k))
		}
		copy(k[:], raw)
		if k.id().String() != name {
			return nil, fmt.Errorf("%s:%d: the key is not the one its id names: put the file back from a copy", f.path, n)
		}
		found = append(found, k)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s holds no key: put the file back from a copy", f.path)
	}
	return found, nil
}

const keyFileHead = `# Keys of the Secrets in the store of this data directory. The first one writes, all read.
# Keep a copy in another place than the copies of the store: without these keys no Secret can be read.
`

// replace writes the file anew.
func (f keyFile) replace(ks keys) error {
	text := []byte(keyFileHead)
	for _, k := range ks {
		text = fmt.Appendf(text, "%s %s\n", k.id(), base64.StdEncoding.EncodeToString(k[:]))
	}
	fresh := f.path + ".new" // under the lock; what a crash left is written over
	if err := f.disk.write(fresh, text); err != nil {
		return fmt.Errorf("write the keys of Secrets: %w", err)
	}
	if err := f.disk.rename(fresh, f.path); err != nil {
		return fmt.Errorf("write the keys of Secrets: %w", err)
	}
	return nil
}

// change replaces the keys by what plan makes of them; nil leaves them. Two processes cannot change them at once.
func (f keyFile) change(plan func(keys) (keys, error)) error {
	lock, err := os.OpenFile(f.path+".lock", os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("lock the keys of Secrets: %w", err)
	}
	defer lock.Close() // frees the lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	present, err := f.read()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	next, err := plan(present)
	if err != nil || next == nil {
		return err
	}
	return f.replace(next)
}

// files is the real disk.
type files struct{}

func (files) write(path string, data []byte) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // never into a file whose mode somebody else chose
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func (files) rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
