package manifest

import (
	"strconv"
	"strings"
)

// child returns the path of a member. Keys that would not read as one step are put in brackets.
func child(path, key string) string {
	switch {
	case strings.ContainsAny(key, ".[]/ "):
		return path + "[" + key + "]"
	case path == "":
		return key
	}
	return path + "." + key
}

func item(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// locate returns the line of the field at path below v, or of the nearest parent that is written: a missing field
// has no line of its own.
func locate(v *value, path string) int {
	line := v.line
	for path != "" {
		next, rest := step(v, path)
		if next == nil {
			return line
		}
		v, path, line = next, rest, next.line
	}
	return line
}

// step takes the first step of path and returns what remains of it.
func step(v *value, path string) (next *value, rest string) {
	path = strings.TrimPrefix(path, ".")
	switch d := v.data.(type) {
	case []*value:
		inner, rest, ok := bracket(path)
		i, err := strconv.Atoi(inner)
		if !ok || err != nil || i < 0 || i >= len(d) {
			return nil, ""
		}
		return d[i], rest
	case *mapping:
		if inner, rest, ok := bracket(path); ok {
			return d.get(strings.Trim(inner, `"'`)), rest
		}
		// Map keys may hold dots without being bracketed: the longest key wins.
		for end := len(path); end > 0; end = strings.LastIndexAny(path[:end], ".[") {
			if next := d.get(path[:end]); next != nil {
				return next, path[end:]
			}
		}
	}
	return nil, ""
}

func bracket(path string) (inner, rest string, ok bool) {
	if !strings.HasPrefix(path, "[") {
		return "", "", false
	}
	inner, rest, ok = strings.Cut(path[1:], "]")
	return inner, rest, ok
}
