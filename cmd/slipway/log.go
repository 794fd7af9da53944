package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	containerdlog "github.com/containerd/log"
	"k8s.io/klog/v2"
)

// maxLog bounds the log file; one older file of that size is kept beside it.
const maxLog = 10 << 20

// openLog returns a logger that writes to path, and to standard error too when verbose.
func openLog(path string, verbose bool) (log *slog.Logger, closeLog func(), err error) {
	file := &logFile{path: path}
	if err := file.open(); err != nil {
		return nil, nil, fmt.Errorf("open log: %w", err)
	}
	var out io.Writer = file
	level := slog.LevelInfo
	if verbose {
		out, level = io.MultiWriter(file, os.Stderr), slog.LevelDebug
	}
	log = slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level}))
	// Libraries with a log of their own: their lines belong into ours, not between those people read.
	klog.SetSlogLogger(log)
	containerdlog.L.Logger.SetOutput(out)
	return log, file.close, nil
}

// logFile is a file that starts anew when it has grown large. A full disk loses log lines, nothing else.
type logFile struct {
	path string

	mu      sync.Mutex
	file    *os.File
	written int64
}

func (l *logFile) open() error {
	file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return err
	}
	l.file, l.written = file, info.Size()
	return nil
}

// Write implements io.Writer. It never fails: what cannot be logged must not stop what is logged about.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.written > maxLog && os.Rename(l.path, l.path+".1") == nil {
		old := l.file
		if l.open() == nil {
			old.Close()
		}
	}
	n, _ := l.file.Write(p)
	l.written += int64(n)
	return len(p), nil
}

func (l *logFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.file.Close()
}
