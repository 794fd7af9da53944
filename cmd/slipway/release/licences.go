package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// licenceFile matches the files at a module's top that state its terms.
var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|copyright|notice|patents)(\.|-|$)`)

// linkedC are the C libraries that are linked into runc, and where Debian keeps their terms.
var linkedC = map[string]string{
	"GNU C library (in runc)": "/usr/share/doc/libc6/copyright",
	"libseccomp (in runc)":    "/usr/share/doc/libseccomp-dev/copyright",
}

// licences returns one text with the terms of everything linked into the programs: each text once, headed by what it
// is for. A part without terms is an error.
func licences(paths []string) ([]byte, error) {
	modules, err := linked(paths)
	if err != nil {
		return nil, err
	}
	dirs, err := moduleDirs(modules)
	if err != nil {
		return nil, err
	}
	terms := map[string][]string{} // by text: who has it
	for _, module := range modules {
		found, err := moduleTerms(dirs[module])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", module, err)
		}
		terms[found] = append(terms[found], module)
	}
	for name, path := range linkedC {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		terms[string(text)] = append(terms[string(text)], name)
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("find Go: %w", err)
	}
	text, err := moduleTerms(strings.TrimSpace(string(root)))
	if err != nil {
		return nil, fmt.Errorf("go: %w", err)
	}
	terms[text] = append(terms[text], "Go and its standard library")
	return render(terms), nil
}

// linked lists the modules in the programs as path@version, sorted, each once.
func linked(paths []string) ([]string, error) {
	set := map[string]bool{}
	for _, path := range paths {
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for _, m := range append(info.Deps, &info.Main) {
			if m.Replace != nil {
				m = m.Replace
			}
			if m.Version != "" && m.Version != "(devel)" { // the rest is this repository
				set[m.Path+"@"+m.Version] = true
			}
		}
	}
	return sorted(set), nil
}

// moduleDirs returns where each module is unpacked on this machine.
func moduleDirs(modules []string) (map[string]string, error) {
	cmd := exec.Command("go", append([]string{"mod", "download", "-json"}, modules...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("find modules: %w", err)
	}
	dirs := map[string]string{}
	decoder := json.NewDecoder(bytes.NewReader(out))
	for {
		var m struct{ Path, Version, Dir string }
		if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
			return dirs, nil
		} else if err != nil {
			return nil, fmt.Errorf("find modules: %w", err)
		}
		dirs[m.Path+"@"+m.Version] = m.Dir
	}
}

// moduleTerms returns the files at the top of a module that state its terms, one after the other.
func moduleTerms(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, e := range entries {
		if !e.Type().IsRegular() || !licenceFile.MatchString(e.Name()) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&text, "%s\n", bytes.TrimSpace(data))
	}
	if text.Len() == 0 {
		return "", errors.New("states no licence: look at where it comes from before it is shipped")
	}
	return text.String(), nil
}

// render puts the texts one after the other, ordered by what they are for.
func render(terms map[string][]string) []byte {
	var texts []string
	for text, names := range terms {
		slices.Sort(names)
		texts = append(texts, text)
	}
	slices.SortFunc(texts, func(a, b string) int { return slices.Compare(terms[a], terms[b]) })
	var out bytes.Buffer
	out.WriteString("What is linked into slipway, containerd, containerd-shim-slipway-v1 and runc, and under which terms.\n" +
		"Sources are at the modules named; `make dist` in Slipway's repository builds the programs from them.\n")
	for _, text := range texts {
		fmt.Fprintf(&out, "\n%s\n\n%s:\n\n%s", strings.Repeat("=", 80), strings.Join(terms[text], "\n"), text)
	}
	return out.Bytes()
}
