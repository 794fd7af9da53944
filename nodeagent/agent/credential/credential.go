// Package credential reads registry credentials out of the Secrets Pods name for pulling images.
//
// It is pure.
package credential

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// entry is the credentials of one registry.
type entry struct {
	Username string `json:"username"`
	Password string `json:"password"`
	Auth     string `json:"auth"`
}

// Read adds the credentials in a pull secret to into: user and password by registry host. No error quotes what the
// secret holds.
func Read(secret *corev1.Secret, into map[string][2]string) error {
	auths := map[string]entry{}
	var err error
	switch secret.Type {
	case corev1.SecretTypeDockerConfigJson:
		var file struct {
			Auths map[string]entry `json:"auths"`
		}
		err = json.Unmarshal(secret.Data[corev1.DockerConfigJsonKey], &file)
		auths = file.Auths
	case corev1.SecretTypeDockercfg:
		err = json.Unmarshal(secret.Data[corev1.DockerConfigKey], &auths)
	default:
		return fmt.Errorf("type %s holds no registry credentials", secret.Type)
	}
	if err != nil {
		return errors.New("it is not valid JSON") // the decoder's words may quote a password
	}
	for registry, c := range auths {
		if c.Username == "" && c.Auth != "" {
			plain, err := base64.StdEncoding.DecodeString(c.Auth)
			if err != nil {
				return fmt.Errorf("auth of %s is not base64", registry)
			}
			c.Username, c.Password, _ = strings.Cut(string(plain), ":")
		}
		into[Host(registry)] = [2]string{c.Username, c.Password}
	}
	return nil
}

// Host returns the host of a registry as credentials name it: a host, with a scheme and path perhaps.
func Host(registry string) string {
	if !strings.Contains(registry, "://") {
		registry = "https://" + registry
	}
	u, err := url.Parse(registry)
	if err != nil {
		return registry
	}
	switch u.Host {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return u.Host
}
