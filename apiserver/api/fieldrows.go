package api

import (
	"maps"
	"reflect"

	corev1 "k8s.io/api/core/v1"
)

// isDone makes rows for fields that are acted on, all below a common path.
func isDone(rows map[string]support, below string, fields ...string) {
	for _, f := range fields {
		rows[below+f] = support{}
	}
}

// refuse and ignore make a row; fine are the values that need no note.
func refuse(note string, fine ...string) support {
	return support{how: refused, note: note, fine: fine}
}
func ignore(note string, fine ...string) support {
	return support{how: ignored, note: note, fine: fine}
}

// podRows is the table of every field of a PodSpec: what this version's scheduler and node agent act on, and what
// becomes of the rest. A field that restricts (security, policy, network, resources), and one without which a
// workload does something else than it was written for, is refused; one whose absence costs only comfort or speed
// is ignored with a note.
func podRows() map[string]support {
	rows := map[string]support{
		"ephemeralContainers":   refuse("ephemeral containers are not run"),
		"shareProcessNamespace": refuse("containers do not share a process namespace", "false"),
		"hostUsers":             refuse("user namespaces are not used", "true"),
		"hostnameOverride":      refuse("the host name is not overridden"),
		"os.name":               refuse("nodes run linux only", "linux"),
		"runtimeClassName":      refuse("other runtimes are not used"),
		"overhead":              refuse("overhead is not reserved"),
		"readinessGates":        refuse("readiness gates are not waited for"),
		"resourceClaims":        refuse("dynamic resources are not allocated"),
		"resources":             refuse("resources of the Pod as a whole are not enforced"),
		"schedulingGroup":       refuse("Pods are scheduled one by one"),
		"evictionResponders":    ignore("eviction responders are not asked"),
		"priorityClassName":     ignore("priority classes are not looked up"),
		"priority":              ignore("it orders waiting Pods, but none is preempted", "0"),
		"preemptionPolicy":      ignore("no Pod is preempted", "PreemptLowerPriority", "Never"),
		"topologySpreadConstraints[].whenUnsatisfiable": refuse("Pods are not spread", "ScheduleAnyway"),
		"securityContext.supplementalGroupsPolicy":      refuse("groups of the image are always added", "Merge"),
		"securityContext.sysctls":                       refuse("sysctls are not set"),
		"securityContext.fsGroupChangePolicy":           ignore("ownership of volumes is always set", "Always"),
		"securityContext.seLinuxChangePolicy":           ignore("SELinux labels are not set"),
		"imagePullSecrets[].name":                       {},
	}
	isDone(rows, "", "restartPolicy", "terminationGracePeriodSeconds", "activeDeadlineSeconds", "dnsPolicy", "nodeSelector",
		"serviceAccountName", "serviceAccount", "automountServiceAccountToken", "nodeName", "hostNetwork", "hostPID", "hostIPC", "hostname",
		"setHostnameAsFQDN", "subdomain", "schedulerName", "enableServiceLinks")
	isDone(rows, "tolerations[].", "key", "operator", "value", "effect")
	rows["tolerations[].tolerationSeconds"] = ignore("Pods are not evicted by taints")
	isDone(rows, "hostAliases[].", "ip", "hostnames")
	isDone(rows, "dnsConfig.", "nameservers", "searches", "options[].name", "options[].value")
	isDone(rows, "schedulingGates[].", "name")
	isDone(rows, "securityContext.", "supplementalGroups", "fsGroup")
	placementRows(rows)
	securityRows(rows, "securityContext.")
	volumeRows(rows, "volumes[].")
	containerRows(rows, "containers[].")
	containerRows(rows, "initContainers[].")
	rows["containers[].restartPolicy"] = refuse("a container cannot restart by a policy of its own")
	rows["initContainers[].restartPolicy"] = refuse("a container cannot restart by a policy of its own", "Always")
	return rows
}

// placementRows are about which node a Pod goes to.
func placementRows(rows map[string]support) {
	maps.Copy(rows, map[string]support{
		"affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution":    ignore("node affinity does not score nodes"),
		"affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution":      refuse("Pod affinity is not enforced"),
		"affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution":     ignore("Pod affinity does not score nodes"),
		"affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution":  refuse("Pod anti-affinity is not enforced"),
		"affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution": ignore("Pod anti-affinity does not score nodes"),
	})
	terms := "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[]."
	for _, match := range []string{terms + "matchExpressions[].", terms + "matchFields[]."} {
		isDone(rows, match, "key", "operator", "values")
	}
	isDone(rows, "topologySpreadConstraints[].", "topologyKey", "labelSelector.matchLabels", "labelSelector.matchExpressions[].key",
		"labelSelector.matchExpressions[].operator", "labelSelector.matchExpressions[].values", "minDomains", "nodeAffinityPolicy",
		"nodeTaintsPolicy", "matchLabelKeys")
	// A constraint that is only a wish needs no more than a note.
	rows["topologySpreadConstraints[].maxSkew"] = support{how: ignored, note: "Pods are not spread", when: func(v reflect.Value) bool {
		return v.Interface().(corev1.TopologySpreadConstraint).WhenUnsatisfiable == corev1.ScheduleAnyway
	}}
}

// securityRows are common to a Pod's and a container's securityContext.
func securityRows(rows map[string]support, below string) {
	isDone(rows, below, "runAsUser", "runAsGroup", "runAsNonRoot")
	maps.Copy(rows, map[string]support{
		below + "seLinuxOptions":                   refuse("SELinux labels are not set"),
		below + "windowsOptions":                   refuse("nodes run linux only"),
		below + "seccompProfile.type":              refuse("seccomp profiles of a node are not loaded", "RuntimeDefault", "Unconfined"),
		below + "seccompProfile.localhostProfile":  refuse("seccomp profiles of a node are not loaded"),
		below + "appArmorProfile.type":             refuse("AppArmor profiles are not set", "Unconfined"),
		below + "appArmorProfile.localhostProfile": refuse("AppArmor profiles are not set"),
	})
}

func containerRows(rows map[string]support, below string) {
	isDone(rows, below, "name", "image", "command", "args", "workingDir", "imagePullPolicy", "stdin", "tty",
		"resources.requests", "ports[].name", "ports[].hostPort", "ports[].containerPort", "ports[].hostIP", "env[].name", "env[].value",
		"envFrom[].prefix", "envFrom[].configMapRef.name", "envFrom[].configMapRef.optional", "envFrom[].secretRef.name", "envFrom[].secretRef.optional",
		"volumeMounts[].name", "volumeMounts[].readOnly", "volumeMounts[].mountPath", "volumeMounts[].subPath", "volumeMounts[].subPathExpr",
		"volumeMounts[].mountPropagation", "terminationMessagePath", "terminationMessagePolicy", "lifecycle.stopSignal")
	for _, hook := range []string{"lifecycle.postStart.", "lifecycle.preStop."} {
		isDone(rows, below+hook, "exec.command", "httpGet.path", "httpGet.port", "httpGet.host", "httpGet.scheme", "httpGet.httpHeaders[].name",
			"httpGet.httpHeaders[].value", "sleep.seconds")
		rows[below+hook+"httpGet.protocol"] = refuse("hooks speak HTTP/1.1 only", "HTTP1")
		// Upstream keeps the field for old objects and does nothing by it.
		rows[below+hook+"tcpSocket"] = ignore("a hook cannot be a TCP connection")
	}
	isDone(rows, below+"env[].valueFrom.", "fieldRef.apiVersion", "fieldRef.fieldPath", "resourceFieldRef.containerName", "resourceFieldRef.resource",
		"resourceFieldRef.divisor", "configMapKeyRef.name", "configMapKeyRef.key", "configMapKeyRef.optional",
		"secretKeyRef.name", "secretKeyRef.key", "secretKeyRef.optional")
	for _, probe := range []string{"livenessProbe.", "readinessProbe.", "startupProbe."} {
		isDone(rows, below+probe, "exec.command", "httpGet.path", "httpGet.port", "httpGet.host", "httpGet.scheme", "httpGet.httpHeaders[].name",
			"httpGet.httpHeaders[].value", "tcpSocket.port", "tcpSocket.host", "grpc.port", "grpc.service", "initialDelaySeconds",
			"timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold", "terminationGracePeriodSeconds")
		rows[below+probe+"grpc.mode"] = refuse("gRPC probes are sent in plain text", "Plaintext")
		rows[below+probe+"httpGet.protocol"] = refuse("probes speak HTTP/1.1 only", "HTTP1")
	}
	securityRows(rows, below+"securityContext.")
	isDone(rows, below+"securityContext.", "capabilities.add", "capabilities.drop", "privileged", "readOnlyRootFilesystem", "allowPrivilegeEscalation", "procMount")
	maps.Copy(rows, map[string]support{
		below + "ports[].protocol":                 refuse("SCTP is not forwarded", "TCP", "UDP"),
		below + "env[].valueFrom.fileKeyRef":       refuse("variables are not read from files"),
		below + "resources.limits":                 refuse("this resource is not limited", "cpu", "memory", "ephemeral-storage"),
		below + "resources.claims":                 refuse("dynamic resources are not allocated"),
		below + "resizePolicy[].resourceName":      {},
		below + "resizePolicy[].restartPolicy":     ignore("containers are not resized", "NotRequired"),
		below + "restartPolicyRules":               refuse("a container cannot restart by a policy of its own"),
		below + "volumeMounts[].recursiveReadOnly": refuse("mounts below a read-only mount stay writable", "Disabled"),
		below + "volumeMounts[].bindMountOptions":  refuse("mount options are not set"),
		below + "volumeDevices":                    refuse("block devices are not attached"),
		below + "stdinOnce":                        ignore("stdin cannot be attached to"),
	})
}

const ownerNote = "files belong to root and the Pod's fsGroup"

func volumeRows(rows map[string]support, below string) {
	isDone(rows, below, "name", "hostPath.path", "hostPath.type", "emptyDir.sizeLimit",
		"secret.secretName", "secret.defaultMode", "secret.optional", "configMap.name", "configMap.defaultMode", "configMap.optional",
		"downwardAPI.defaultMode", "projected.defaultMode")
	rows[below+"emptyDir.medium"] = refuse("this medium is not offered", "Memory")
	rows[below+"emptyDir.mode"] = refuse("the directory's mode is always 0777")
	sources := below + "projected.sources[]."
	isDone(rows, sources, "secret.name", "secret.optional", "configMap.name", "configMap.optional",
		"serviceAccountToken.audience", "serviceAccountToken.expirationSeconds", "serviceAccountToken.path")
	rows[sources+"clusterTrustBundle"] = refuse("trust bundles are not projected")
	rows[sources+"podCertificate"] = refuse("Pod certificates are not issued")
	for _, items := range []string{below + "secret.items[].", below + "configMap.items[].", sources + "secret.items[].", sources + "configMap.items[]."} {
		isDone(rows, items, "key", "path", "mode")
		rows[items+"user"] = refuse(ownerNote)
	}
	for _, items := range []string{below + "downwardAPI.items[].", sources + "downwardAPI.items[]."} {
		isDone(rows, items, "path", "mode", "fieldRef.apiVersion", "fieldRef.fieldPath", "resourceFieldRef.containerName", "resourceFieldRef.resource", "resourceFieldRef.divisor")
		rows[items+"user"] = refuse(ownerNote)
	}
	for _, owner := range []string{below + "secret.defaultUser", below + "configMap.defaultUser", below + "downwardAPI.defaultUser",
		below + "projected.defaultUser", sources + "serviceAccountToken.user"} {
		rows[owner] = refuse(ownerNote)
	}
	for _, kind := range []string{"gcePersistentDisk", "awsElasticBlockStore", "gitRepo", "nfs", "iscsi", "glusterfs", "persistentVolumeClaim", "rbd",
		"flexVolume", "cinder", "cephfs", "flocker", "fc", "azureFile", "vsphereVolume", "quobyte", "azureDisk", "photonPersistentDisk",
		"portworxVolume", "scaleIO", "storageos", "csi", "ephemeral", "image"} {
		rows[below+kind] = refuse("volumes of this type are not mounted")
	}
}

// serviceRows is the table of a ServiceSpec.
var serviceRows = map[string]support{
	"type":                ignore("no load balancer is made; the node ports work", "ClusterIP", "NodePort", "ExternalName"),
	"ports[].name":        {},
	"ports[].protocol":    refuse("SCTP is not forwarded", "TCP", "UDP"),
	"ports[].appProtocol": {},
	"ports[].port":        {},
	"ports[].targetPort":  {},
	"ports[].nodePort":    {},
	"selector":            {},
	"clusterIP":           {},
	"clusterIPs":          {},
	"externalIPs":         refuse("addresses that belong to others are not taken"),
	"sessionAffinity":     {},
	"sessionAffinityConfig.clientIP.timeoutSeconds": {},
	"loadBalancerIP":                ignore("no load balancer is made"),
	"loadBalancerSourceRanges":      refuse("source ranges are not enforced"),
	"loadBalancerClass":             ignore("no load balancer is made"),
	"allocateLoadBalancerNodePorts": {},
	"externalName":                  {},
	"externalTrafficPolicy":         {},
	"internalTrafficPolicy":         {},
	"healthCheckNodePort":           ignore("no load balancer is made"),
	"publishNotReadyAddresses":      {},
	"ipFamilies":                    {},
	"ipFamilyPolicy":                {},
	"trafficDistribution":           ignore("traffic is spread evenly"),
}
