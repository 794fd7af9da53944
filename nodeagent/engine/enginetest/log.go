package enginetest

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// ReadLog reads a log file in the CRI format and refuses what is not in it.
func ReadLog(path string) ([]Line, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var lines []Line
	for text := range strings.Lines(string(data)) {
		if !strings.HasSuffix(text, "\n") {
			break // being written
		}
		fields := strings.SplitN(strings.TrimSuffix(text, "\n"), " ", 4)
		if len(fields) != 4 {
			return nil, fmt.Errorf("%s: %q is not a CRI log line", path, text)
		}
		at, err := time.Parse(time.RFC3339Nano, fields[0])
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", path, text, err)
		}
		if fields[1] != "stdout" && fields[1] != "stderr" || fields[2] != "F" && fields[2] != "P" {
			return nil, fmt.Errorf("%s: %q has neither stream nor tag of a CRI log line", path, text)
		}
		lines = append(lines, Line{At: at, Stream: fields[1], Tag: fields[2], Text: fields[3]})
	}
	return lines, nil
}
