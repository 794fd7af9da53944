package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newZap returns a logger that hands warnings and errors to log, until it is closed or has died: a server
// that is told to stop complains of every listener. Where etcd means to end the process, only the server ends.
func (b *Backend) newZap(log *slog.Logger) *zap.Logger {
	end := deathbed{b}
	return zap.New(core{log: log.With("part", "etcd"), over: b.over, plain: b.fence.plain}, zap.WithFatalHook(end), zap.WithPanicHook(end))
}

// over says that what the server logs is of no interest any more.
func (b *Backend) over() bool {
	select {
	case <-b.closed:
		return true
	case <-b.alive.Done():
		return true
	default:
		return false
	}
}

// deathbed is called after the last line a server logs.
type deathbed struct{ b *Backend }

// notClosed is what etcd says, and panics of, when its log cannot be closed cleanly. A server that was cut off goes on
// from there: others wait for it.
const notClosed = "failed to close Raft storage"

// OnWrite ends the server and the goroutine that cannot go on.
func (d deathbed) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	cause := errors.New(entry.Message)
	for _, field := range fields {
		if err, ok := field.Interface.(error); ok {
			cause = fmt.Errorf("%s: %w", entry.Message, err)
		}
	}
	d.b.die(cause)
	if entry.Message != notClosed {
		runtime.Goexit()
	}
}

// core is a zapcore.Core on slog.
type core struct {
	log   *slog.Logger
	over  func() bool         // nothing more is handed on
	plain func(string) string // for paths in texts
}

// expected says that a warning is about how this package sets the server up, or about the first moments of a new
// database, before its first commit.
func expected(message string) bool {
	switch message {
	case "Running http and grpc server on single port. This is not recommended for production.",
		"simple token is not cryptographically signed":
		return true
	}
	return false
}

// young is in the warnings about a database that has not been committed to yet.
const young = "missing term information"

// Enabled says which levels are handed on.
func (c core) Enabled(level zapcore.Level) bool { return level >= zapcore.WarnLevel }

// With implements zapcore.Core.
func (c core) With(fields []zapcore.Field) zapcore.Core {
	c.log = c.log.With(c.attributes(fields)...)
	return c
}

// Check implements zapcore.Core.
func (c core) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !c.Enabled(entry.Level) || expected(entry.Message) {
		return checked
	}
	return checked.AddCore(entry, c)
}

// Write implements zapcore.Core.
func (c core) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	if c.over() {
		return nil
	}
	for _, field := range fields {
		if err, ok := field.Interface.(error); ok && strings.Contains(err.Error(), young) {
			return nil
		}
	}
	level := slog.LevelWarn
	if entry.Level >= zapcore.ErrorLevel {
		level = slog.LevelError
	}
	c.log.Log(context.Background(), level, c.plain(entry.Message), c.attributes(fields)...)
	return nil
}

// Sync implements zapcore.Core.
func (c core) Sync() error { return nil }

func (c core) attributes(fields []zapcore.Field) []any {
	encoder := zapcore.NewMapObjectEncoder()
	all := make([]any, 0, len(fields))
	for _, field := range fields {
		field.AddTo(encoder)
		if value, ok := encoder.Fields[field.Key]; ok {
			if text, ok := value.(string); ok {
				value = c.plain(text)
			}
			all = append(all, slog.Any(field.Key, value))
		}
	}
	return all
}
