package manifest

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
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
	complete(defaulted)
	var problems []Problem
	for _, e := range api.Validate(defaulted) {
		if e.Field == "[]" { // upstream's way to say: the object as a whole
			e.Field = ""
		}
		if follows(e, known) {
			continue
		}
		problems = append(problems, Problem{Path: at.path, Line: at.doc.line + locate(v, e.Field), Object: named(v, kind), Field: e.Field,
			Message: describe(e, kind == api.Secrets), rank: rankValue})
	}
	return problems
}

// complete fills in what upstream's API server fills in between defaulting and validation.
func complete(obj api.Object) {
	s, ok := obj.(*corev1.Service)
	if !ok {
		return
	}
	if s.Spec.ClusterIP != "" && len(s.Spec.ClusterIPs) == 0 {
		s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	}
	if s.Spec.HealthCheckNodePort == 0 && s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		s.Spec.HealthCheckNodePort = 30000 // any port: one is allocated on creation
	}
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
	if !secret {
		got = short(e.BadValue)
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
	return with("is not valid", e.Detail, "")
}

// rules are the regular expressions upstream adds to messages that already say the rule in words.
var rules = regexp.MustCompile(`,? ?regex used for validation is '.*'`)

func with(what, detail, got string) string {
	detail = rules.ReplaceAllString(detail, "")
	if detail != "" {
		what += ": " + detail
	}
	if got != "" {
		what += " (got " + got + ")"
	}
	return what
}

// short prints a scalar for "got", strings quoted and cut at 60 bytes; "" for anything else.
func short(bad any) string {
	v := reflect.ValueOf(bad)
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	switch {
	case v.Kind() == reflect.String:
		text := v.String()
		if len(text) > 60 {
			text = strings.ToValidUTF8(text[:60], "") + "…"
		}
		return strconv.Quote(text)
	case v.CanInt(), v.CanUint(), v.CanFloat(), v.Kind() == reflect.Bool:
		return fmt.Sprint(v.Interface())
	}
	return ""
}
