package manifest

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// validate runs Kubernetes' own rules on a defaulted copy of obj. What follows from problems already found, such
// as a field that is missing because its name is misspelt, is left out.
func validate(at place, v *value, kind *api.Kind, obj api.Object, known []Problem) []Problem {
	defaulted, ok := obj.DeepCopyObject().(api.Object)
	if !ok {
		return nil
	}
	api.Default(defaulted)
	var problems []Problem
	for _, e := range api.Validate(defaulted) {
		if follows(e, known) {
			continue
		}
		problems = append(problems, Problem{Path: at.path, Line: at.doc.line + locate(v, e.Field), Object: named(v, kind), Field: e.Field,
			Message: describe(e, kind == api.Secrets), rank: rankValue})
	}
	return problems
}

// follows says whether e is explained by a problem at the same field, above it, or beside it.
func follows(e *field.Error, known []Problem) bool {
	for _, p := range known {
		if p.Field == "" {
			continue
		}
		if e.Field == p.Field || strings.HasPrefix(e.Field, p.Field+".") || strings.HasPrefix(e.Field, p.Field+"[") || parent(e.Field) == parent(p.Field) {
			return true
		}
	}
	return false
}

func parent(path string) string {
	if i := strings.LastIndexAny(path, ".["); i >= 0 {
		return path[:i]
	}
	return ""
}

// describe says what is wrong in Slipway's order: what, then what was got and wanted.
func describe(e *field.Error, secret bool) string {
	got := ""
	switch v := e.BadValue.(type) {
	case string, bool, int, int32, int64, *int32, *int64, *bool:
		if !secret {
			got = short(v)
		}
	}
	switch e.Type {
	case field.ErrorTypeRequired:
		return with("is missing", e.Detail, "")
	case field.ErrorTypeNotSupported:
		want, ok := strings.CutPrefix(e.Detail, "supported values: ")
		if ok && got != "" {
			return fmt.Sprintf("is not supported (got %s, want one of %s)", got, want)
		}
		return with("is not supported", e.Detail, got)
	case field.ErrorTypeDuplicate:
		return with("is there twice", e.Detail, got)
	case field.ErrorTypeForbidden:
		return with("is not allowed", e.Detail, "")
	case field.ErrorTypeNotFound:
		return with("is not there", e.Detail, got)
	case field.ErrorTypeInvalid, field.ErrorTypeTypeInvalid:
		return with("is not valid", e.Detail, got)
	}
	if secret {
		return with(e.Type.String(), e.Detail, "")
	}
	return e.ErrorBody()
}

func with(what, detail, got string) string {
	if detail != "" {
		what += ": " + detail
	}
	if got != "" {
		what += " (got " + got + ")"
	}
	return what
}

// short prints a scalar for "got": quoted strings, at most 60 bytes.
func short(v any) string {
	switch d := v.(type) {
	case string:
		if len(d) > 60 {
			d = strings.ToValidUTF8(d[:60], "") + "…"
		}
		return fmt.Sprintf("%q", d)
	case *int32:
		return pointed(d)
	case *int64:
		return pointed(d)
	case *bool:
		return pointed(d)
	}
	return fmt.Sprint(v)
}

func pointed[T any](p *T) string {
	if p == nil {
		return ""
	}
	return fmt.Sprint(*p)
}
