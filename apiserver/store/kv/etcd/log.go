package etcd

import (
	"context"
	"log/slog"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newZap returns a logger that hands warnings and errors to log, until closed: a server that is told to stop
// complains of every listener.
func newZap(log *slog.Logger, closed <-chan struct{}) *zap.Logger {
	return zap.New(core{log: log.With("part", "etcd"), closed: closed})
}

// core is a zapcore.Core on slog.
type core struct {
	log    *slog.Logger
	closed <-chan struct{}
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
	return core{log: c.log.With(attributes(fields)...), closed: c.closed}
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
	select {
	case <-c.closed:
		return nil
	default:
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
	c.log.Log(context.Background(), level, entry.Message, attributes(fields)...)
	return nil
}

// Sync implements zapcore.Core.
func (c core) Sync() error { return nil }

func attributes(fields []zapcore.Field) []any {
	encoder := zapcore.NewMapObjectEncoder()
	all := make([]any, 0, len(fields))
	for _, field := range fields {
		field.AddTo(encoder)
		if value, ok := encoder.Fields[field.Key]; ok {
			all = append(all, slog.Any(field.Key, value))
		}
	}
	return all
}
