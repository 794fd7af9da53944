package recipe

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// serviceEnv returns the variables by which Pods find Services without DNS: of the Pod's own namespace when it wants
// them, and of default/kubernetes always.
func serviceEnv(in Input) map[string]string {
	pod := in.Self.Pod
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	out := map[string]string{}
	for _, s := range in.Services {
		if s.Namespace == pod.Namespace && links && !isAPI(s) {
			addService(out, s)
		}
	}
	api := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"},
		Spec:       corev1.ServiceSpec{ClusterIP: in.Cluster.APIHost, Ports: []corev1.ServicePort{{Name: "https", Port: in.Cluster.APIPort}}},
	}
	for _, s := range in.Services {
		if isAPI(s) && hasAddress(s) {
			api = s
		}
	}
	addService(out, api)
	return out
}

func isAPI(s *corev1.Service) bool {
	return s.Namespace == metav1.NamespaceDefault && s.Name == "kubernetes"
}

func hasAddress(s *corev1.Service) bool {
	return s.Spec.ClusterIP != "" && s.Spec.ClusterIP != corev1.ClusterIPNone
}

func addService(out map[string]string, s *corev1.Service) {
	if !hasAddress(s) || len(s.Spec.Ports) == 0 {
		return
	}
	name, ip := variable(s.Name), s.Spec.ClusterIP
	out[name+"_SERVICE_HOST"] = ip
	out[name+"_SERVICE_PORT"] = strconv.Itoa(int(s.Spec.Ports[0].Port))
	for i, p := range s.Spec.Ports {
		port := strconv.Itoa(int(p.Port))
		if p.Name != "" {
			out[name+"_SERVICE_PORT_"+variable(p.Name)] = port
		}
		protocol := string(corev1.ProtocolTCP)
		if p.Protocol != "" {
			protocol = string(p.Protocol)
		}
		url := fmt.Sprintf("%s://%s", strings.ToLower(protocol), net.JoinHostPort(ip, port))
		if i == 0 {
			out[name+"_PORT"] = url
		}
		link := fmt.Sprintf("%s_PORT_%s_%s", name, port, strings.ToUpper(protocol))
		out[link] = url
		out[link+"_PROTO"] = strings.ToLower(protocol)
		out[link+"_PORT"] = port
		out[link+"_ADDR"] = ip
	}
}

// variable makes a name fit for an environment variable.
func variable(name string) string {
	return strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}
