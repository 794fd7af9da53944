package chaos

// steady is what nobody touches: its containers must stay as they are through everything.
const steady = `apiVersion: v1
kind: Namespace
metadata: {name: steady}
---
apiVersion: v1
kind: Namespace
metadata: {name: written}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: steady, namespace: steady}
spec:
  replicas: 3
  selector: {matchLabels: {app: steady, part: web}}
  template:
    metadata: {labels: {app: steady, part: web}}
    spec:
      containers:
        - name: web
          image: test.local/testpod:1
          args: [serve]
          readinessProbe: {httpGet: {port: 8080, path: /healthz}, periodSeconds: 1}
          livenessProbe: {httpGet: {port: 8080, path: /healthz}, periodSeconds: 1, failureThreshold: 5}
---
apiVersion: v1
kind: Service
metadata: {name: steady, namespace: steady}
spec:
  selector: {app: steady, part: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: parts, namespace: steady, labels: {app: steady}}
spec:
  volumes: [{name: shared, emptyDir: {}}]
  initContainers:
    - {name: first, image: "test.local/testpod:1", args: [write, /shared/made, once], volumeMounts: [{name: shared, mountPath: /shared}]}
    - {name: beside, image: "test.local/testpod:1", args: [sleep], restartPolicy: Always}
  containers:
    - {name: main, image: "test.local/testpod:1", args: [sleep], volumeMounts: [{name: shared, mountPath: /shared}]}
    - {name: second, image: "test.local/testpod:1", args: [tcp]}
`

// rolling is changed, scaled and rolled out; its arguments are the number of replicas and a version.
const rolling = `apiVersion: apps/v1
kind: Deployment
metadata: {name: rolling, namespace: steady}
spec:
  replicas: %d
  selector: {matchLabels: {app: rolling}}
  template:
    metadata: {labels: {app: rolling}, annotations: {version: "%d"}}
    spec:
      containers:
        - name: main
          image: test.local/testpod:1
          args: [serve]
          readinessProbe: {httpGet: {port: 8080, path: /healthz}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: rolling, namespace: steady}
spec:
  selector: {app: rolling}
  ports: [{port: 80, targetPort: 8080}]
`
