package recipe

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Objects are the ConfigMaps and Secrets a container's environment is made of, by name. A name that maps to nil is
// known not to exist.
type Objects struct {
	ConfigMaps map[string]*corev1.ConfigMap
	Secrets    map[string]*corev1.Secret
}

// References returns the names of the ConfigMaps and Secrets a container's environment needs.
func References(c corev1.Container) (configMaps, secrets []string) {
	for _, from := range c.EnvFrom {
		if from.ConfigMapRef != nil {
			configMaps = append(configMaps, from.ConfigMapRef.Name)
		}
		if from.SecretRef != nil {
			secrets = append(secrets, from.SecretRef.Name)
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			continue
		}
		if ref := e.ValueFrom.ConfigMapKeyRef; ref != nil {
			configMaps = append(configMaps, ref.Name)
		}
		if ref := e.ValueFrom.SecretKeyRef; ref != nil {
			secrets = append(secrets, ref.Name)
		}
	}
	slices.Sort(configMaps)
	slices.Sort(secrets)
	return slices.Compact(configMaps), slices.Compact(secrets)
}

// Env returns a container's environment as NAME=value: host name, Services, envFrom, env; later ones win.
func Env(in Input) ([]string, error) {
	services := serviceEnv(in)
	own := map[string]string{}
	for _, from := range in.Container.EnvFrom {
		if err := in.envFrom(from, own); err != nil {
			return nil, err
		}
	}
	find := func(name string) (string, bool) {
		if v, ok := own[name]; ok {
			return v, true
		}
		v, ok := services[name]
		return v, ok
	}
	for _, e := range in.Container.Env {
		value, set, err := in.value(e, find)
		if err != nil {
			return nil, err
		}
		if set {
			own[e.Name] = value
		}
	}
	all := map[string]string{}
	if in.Hostname != "" {
		all["HOSTNAME"] = in.Hostname
	}
	maps.Copy(all, services)
	maps.Copy(all, own)
	out := make([]string, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, name+"="+all[name])
	}
	return out, nil
}

func (in Input) envFrom(from corev1.EnvFromSource, into map[string]string) error {
	if ref := from.ConfigMapRef; ref != nil {
		cm := in.Objects.ConfigMaps[ref.Name]
		if cm == nil {
			return absent("configmap", ref.Name, ref.Optional)
		}
		for k, v := range cm.Data {
			into[from.Prefix+k] = v
		}
	}
	if ref := from.SecretRef; ref != nil {
		secret := in.Objects.Secrets[ref.Name]
		if secret == nil {
			return absent("secret", ref.Name, ref.Optional)
		}
		for k, v := range secret.Data {
			into[from.Prefix+k] = string(v)
		}
	}
	return nil
}

func absent(kind, name string, optional *bool) error {
	if optional != nil && *optional {
		return nil
	}
	return fmt.Errorf("%s %q not found", kind, name)
}

// value returns one variable; set is false when an optional source is missing.
func (in Input) value(e corev1.EnvVar, find func(string) (string, bool)) (value string, set bool, err error) {
	from := e.ValueFrom
	switch {
	case e.Value != "" || from == nil:
		return Expand(e.Value, find), true, nil
	case from.FieldRef != nil:
		value, err = in.Self.Field(from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err = in.Self.Resource(from.ResourceFieldRef, in.Container.Name)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		cm := in.Objects.ConfigMaps[ref.Name]
		if cm == nil {
			return "", false, absent("configmap", ref.Name, ref.Optional)
		}
		value, ok := cm.Data[ref.Key]
		return value, ok, in.noKey(ok, ref.Key, "ConfigMap", ref.Name, ref.Optional)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		secret := in.Objects.Secrets[ref.Name]
		if secret == nil {
			return "", false, absent("secret", ref.Name, ref.Optional)
		}
		value, ok := secret.Data[ref.Key]
		return string(value), ok, in.noKey(ok, ref.Key, "Secret", ref.Name, ref.Optional)
	}
	return "", false, fmt.Errorf("variable %s: this kind of source is not supported", e.Name)
}

func (in Input) noKey(found bool, key, kind, name string, optional *bool) error {
	if found || (optional != nil && *optional) {
		return nil
	}
	return fmt.Errorf("couldn't find key %s in %s %s/%s", key, kind, in.Self.Pod.Namespace, name)
}

// Expand replaces $(NAME) by the variable's value; an unknown name stays as it is, $$ stands for $.
func Expand(text string, find func(string) (string, bool)) string {
	if !strings.Contains(text, "$") {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '$' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		switch next := text[i+1]; next {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(text[i:], ')')
			if end < 0 {
				b.WriteByte('$')
				continue
			}
			if value, ok := find(text[i+2 : i+end]); ok {
				b.WriteString(value)
			} else {
				b.WriteString(text[i : i+end+1])
			}
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

func expandAll(list []string, find func(string) (string, bool)) []string {
	if list == nil {
		return nil
	}
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = Expand(s, find)
	}
	return out
}

// lookup finds variables in NAME=value form.
func lookup(env []string) func(string) (string, bool) {
	m := make(map[string]string, len(env))
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		m[name] = value
	}
	return func(name string) (string, bool) {
		v, ok := m[name]
		return v, ok
	}
}

// Lookup returns how Expand finds the variables of env, which has NAME=value form.
func Lookup(env []string) func(string) (string, bool) { return lookup(env) }
