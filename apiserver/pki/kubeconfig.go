package pki

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Kubeconfig is a file (0600) with which a user reaches a server.
type Kubeconfig struct {
	Path   string
	Server string // URL
	User   string
	Groups []string
}

// WriteKubeconfig writes a kubeconfig (0600) at path that reaches server as user with groups.
func (a *Authority) WriteKubeconfig(path, server, user string, groups ...string) error {
	return Kubeconfig{path, server, user, groups}.write(a)
}

func (k Kubeconfig) write(a *Authority) error {
	cert, key, err := a.ClientCertificate(k.User, k.Groups...)
	if err != nil {
		return err
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["slipway"] = &clientcmdapi.Cluster{Server: k.Server, CertificateAuthorityData: a.PEM()}
	config.AuthInfos[k.User] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	config.Contexts["slipway"] = &clientcmdapi.Context{Cluster: "slipway", AuthInfo: k.User}
	config.CurrentContext = "slipway"
	data, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("encode kubeconfig: %w", err)
	}
	return writeFile(k.Path, data, 0o600)
}

// Refresh writes the file anew, as a whole, when it would not do any more, and returns why.
func (k Kubeconfig) Refresh(a *Authority) (why string, err error) {
	if why, err = k.stale(a); why == "" || err != nil {
		return "", err
	}
	return why, k.write(a)
}

// stale says what is wrong with the file.
func (k Kubeconfig) stale(a *Authority) (string, error) {
	data, err := os.ReadFile(k.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return "it was gone", nil
	}
	if err != nil {
		return "", fmt.Errorf("read kubeconfig: %w", err)
	}
	config, err := clientcmd.Load(data)
	if err != nil {
		return "it could not be read", nil
	}
	cluster, user := config.Clusters["slipway"], config.AuthInfos[k.User]
	if cluster == nil || user == nil || cluster.Server != k.Server {
		return "it was another's", nil
	}
	certs, err := parseBundle(user.ClientCertificateData)
	if err != nil {
		return "its certificate could not be read", nil
	}
	if reason := due(certs[0], a.now(), leafSpare); reason != "" {
		return "its certificate " + reason, nil
	}
	if !bytes.Equal(cluster.CertificateAuthorityData, a.PEM()) {
		return "the certificate of the authority changed", nil
	}
	return "", nil
}
