// Package termination reads what a container left to say about its end: the file it may write, or the end of its log.
//
// It must not decide which of the two is meant.
package termination

import (
	"bytes"
	"os"
	"strings"
)

// Bounds of a message, as the kubelet's.
const (
	messageLimit     = 4096
	messageLogLines  = 80
	messageLogsLimit = 2048
)

// Message returns the content of file. When that is empty, the last lines of log, a CRI log file; an empty log name
// stands for none. What cannot be read is empty.
func Message(file, log string) string {
	text := head(file, messageLimit)
	if text != "" || log == "" {
		return text
	}
	return tailOfLog(log)
}

// head returns the beginning of a file, nothing when it cannot be read.
func head(path string, limit int) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	buffer := make([]byte, limit)
	n, _ := f.Read(buffer)
	return strings.ToValidUTF8(string(buffer[:n]), "")
}

// tailOfLog returns the last lines of a CRI log file without their heads.
func tailOfLog(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	const window = 64 << 10
	buffer := make([]byte, min(info.Size(), window))
	if _, err := f.ReadAt(buffer, info.Size()-int64(len(buffer))); err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSuffix(buffer, []byte{'\n'}), []byte{'\n'})
	if len(lines) > messageLogLines {
		lines = lines[len(lines)-messageLogLines:]
	}
	var out bytes.Buffer
	for _, line := range lines {
		if parts := bytes.SplitN(line, []byte{' '}, 4); len(parts) == 4 {
			out.Write(parts[3])
			if string(parts[2]) != "P" {
				out.WriteByte('\n')
			}
		}
	}
	text := out.Bytes()
	if len(text) > messageLogsLimit {
		text = text[len(text)-messageLogsLimit:]
	}
	return strings.ToValidUTF8(string(text), "")
}
