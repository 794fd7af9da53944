package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/slipway-dev/slipway/apiserver/api"
	slipwayv1 "github.com/slipway-dev/slipway/apiserver/api/v1alpha1"
	"github.com/slipway-dev/slipway/apiserver/pki"
	"github.com/slipway-dev/slipway/apiserver/registry"
	"github.com/slipway-dev/slipway/gitsource"
	"github.com/slipway-dev/slipway/reconciler/drain"
	"github.com/slipway-dev/slipway/reconciler/gitops"
	"github.com/slipway-dev/slipway/reconciler/gitops/health"
)

// apiClient asks a running Slipway.
type apiClient struct {
	host   string
	client *http.Client
}

// connect uses the kubeconfig in a data directory.
func connect(dataDir string) (*apiClient, error) {
	path := filepath.Join(dataDir, "kubeconfig")
	if _, err := os.Stat(path); err != nil {
		return nil, usage("%w: is this the data directory of `slipway up`, and may you read it?", err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, failed(fmt.Errorf("read %s: %w", path, err))
	}
	return newAPIClient(config)
}

func newAPIClient(config *rest.Config) (*apiClient, error) {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, failed(err)
	}
	client.Timeout = 10 * time.Second
	return &apiClient{host: config.Host, client: client}, nil
}

// list reads a whole kind into a list type.
func (c *apiClient) list(ctx context.Context, kind *api.Kind, into any) error {
	path := "/apis/" + kind.Group + "/" + kind.Version + "/" + kind.Resource
	if kind.Group == "" {
		path = "/api/" + kind.Version + "/" + kind.Resource
	}
	return c.do(ctx, http.MethodGet, path, "", into)
}

func (c *apiClient) do(ctx context.Context, method, path, body string, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, c.host+path, strings.NewReader(body))
	if err != nil {
		return failed(err)
	}
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	response, err := c.client.Do(request)
	if err != nil {
		return failed(fmt.Errorf("ask %s: %w: is `slipway up` running?", c.host, err))
	}
	defer response.Body.Close()
	decoder := json.NewDecoder(response.Body)
	if response.StatusCode != http.StatusOK {
		var status metav1.Status
		if err := decoder.Decode(&status); err != nil {
			return failed(fmt.Errorf("ask %s: %s", c.host, response.Status))
		}
		return failed(fmt.Errorf("ask %s: %s", c.host, status.Message))
	}
	if err := decoder.Decode(into); err != nil {
		return failed(fmt.Errorf("read answer of %s: %w", c.host, err))
	}
	return nil
}

func statusCommand() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Say what runs and whether it is as Git wants it",
		Example: "  slipway status",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return status(cmd, dataDir) },
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", defaultDataDir, "data directory of slipway up")
	return cmd
}

func status(cmd *cobra.Command, dataDir string) error {
	client, err := connect(dataDir)
	if err != nil {
		return err
	}
	var sources slipwayv1.SourceList
	var rollouts slipwayv1.RolloutList
	var deployments appsv1.DeploymentList
	var pods corev1.PodList
	var namespaces corev1.NamespaceList
	var nodes corev1.NodeList
	for kind, into := range map[*api.Kind]any{api.Sources: &sources, api.Rollouts: &rollouts, api.Deployments: &deployments, api.Pods: &pods,
		api.Namespaces: &namespaces, api.Nodes: &nodes} {
		if err := client.list(cmd.Context(), kind, into); err != nil {
			return err
		}
	}
	out := cmd.OutOrStdout()
	for _, s := range sources.Items {
		fmt.Fprintf(out, "source   %s at %s\n", described(s.Spec), recorded(rollouts.Items, s.Status.Applied).Short())
		for _, c := range s.Status.Conditions {
			if c.Status != metav1.ConditionTrue {
				fmt.Fprintf(out, "         not %s: %s\n", strings.ToLower(c.Type), c.Message)
			}
		}
	}
	running := 0
	for i := range pods.Items {
		if pods.Items[i].Status.Phase == corev1.PodRunning {
			running++
		}
	}
	fmt.Fprintf(out, "pods     %d of %d running\n", running, len(pods.Items))
	for _, line := range slices.Concat(leaving(namespaces.Items), restrictions(nodes.Items)) {
		fmt.Fprintln(out, line)
	}
	table := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for i := range deployments.Items {
		d := &deployments.Items[i]
		h := health.Of(d, nil, time.Now())
		fmt.Fprintf(table, "%s/%s\t%d/%d ready\t%s\t%s\n", d.Namespace, d.Name, h.Ready, h.Wanted, h.Status, h.Message)
	}
	return failed(table.Flush())
}

// leaving returns a line for each namespace that is being deleted, with what holds it.
func leaving(namespaces []corev1.Namespace) []string {
	var lines []string
	for i := range namespaces {
		if h := health.Of(&namespaces[i], nil, time.Now()); h.Status != health.Current {
			lines = append(lines, fmt.Sprintf("leaving  namespace %s %s", namespaces[i].Name, h.Message))
		}
	}
	return lines
}

// restrictions say what keeps Pods off nodes, and how far a node is from empty where it is to be.
func restrictions(nodes []corev1.Node) []string {
	var lines []string
	for _, node := range nodes {
		name := "node     " + node.Name
		if node.Spec.Unschedulable {
			lines = append(lines, name+" takes no new Pods: spec.unschedulable")
		}
		for _, t := range node.Spec.Taints {
			if !strings.HasPrefix(t.Key, "node.kubernetes.io/") { // those are said with the condition they stand for
				lines = append(lines, name+" has taint "+t.ToString())
			}
		}
		for _, c := range node.Status.Conditions {
			switch {
			case c.Type == drain.Drained:
				lines = append(lines, name+" drain: "+c.Message)
			case c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue:
				lines = append(lines, name+" is not ready: "+c.Message)
			case strings.HasSuffix(string(c.Type), "Pressure") && c.Status == corev1.ConditionTrue:
				lines = append(lines, fmt.Sprintf("%s has %s: %s", name, c.Type, c.Message))
			}
		}
	}
	return lines
}

func historyCommand() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:     "history",
		Short:   "List the commits that were applied and how they went",
		Example: "  slipway history",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return history(cmd, dataDir) },
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", defaultDataDir, "data directory of slipway up")
	return cmd
}

func history(cmd *cobra.Command, dataDir string) error {
	client, err := connect(dataDir)
	if err != nil {
		return err
	}
	var rollouts slipwayv1.RolloutList
	if err := client.list(cmd.Context(), api.Rollouts, &rollouts); err != nil {
		return err
	}
	slices.SortFunc(rollouts.Items, func(a, b slipwayv1.Rollout) int { return b.Status.StartedAt.Compare(a.Status.StartedAt.Time) })
	table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
	fmt.Fprintln(table, "REVISION\tPHASE\t+\t~\t-\tAGE\tSUBJECT\tMESSAGE")
	for _, r := range rollouts.Items {
		revision := revisionOf(&r)
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\n", revision.Short(), r.Status.Phase, r.Status.Created, r.Status.Updated, r.Status.Deleted,
			duration.HumanDuration(time.Since(r.Status.StartedAt.Time)), r.Spec.Subject, r.Status.Message)
	}
	return failed(table.Flush())
}

func confirmCommand() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:   "confirm REVISION",
		Short: "Let the deletions of a commit go ahead that waits for confirmation",
		Long: `A commit that would delete more than half of what runs waits until somebody says that this is meant. It takes
the key of the data directory, which only root can read.`,
		Example: "  slipway confirm 3f2c1ab",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return confirm(cmd, dataDir, args[0]) },
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", defaultDataDir, "data directory of slipway up")
	return cmd
}

// revisionOf is the revision a Rollout records.
func revisionOf(r *slipwayv1.Rollout) gitsource.Revision {
	return gitsource.Revision{ID: r.Spec.Revision, Head: r.Spec.Head, Dirty: r.Spec.Dirty}
}

// recorded returns the revision of that id with the commit it was read at, which is the name people know it by.
func recorded(rollouts []slipwayv1.Rollout, id string) gitsource.Revision {
	for i := range rollouts {
		if r := &rollouts[len(rollouts)-1-i]; r.Spec.Revision == id { // newest first
			return revisionOf(r)
		}
	}
	return gitsource.Revision{ID: id}
}

func confirm(cmd *cobra.Command, dataDir, revision string) error {
	reader, err := connect(dataDir)
	if err != nil {
		return err
	}
	path := "/apis/" + api.Sources.Group + "/" + api.Sources.Version + "/" + api.Sources.Resource + "/" + gitops.DefaultSource
	var source slipwayv1.Source
	if err := reader.do(cmd.Context(), http.MethodGet, path, "", &source); err != nil {
		return err
	}
	if waiting := source.Status.Awaiting; len(revision) < 7 || !strings.HasPrefix(waiting, revision) {
		if waiting == "" {
			return usage("no commit waits for confirmation")
		}
		return usage("%q does not wait for confirmation; %s does", revision, waiting)
	}
	authority, err := pki.Open(filepath.Join(dataDir, "pki"), time.Now)
	if err != nil {
		return usage("confirm: %w", err)
	}
	identity := registry.GitOps()
	certPEM, keyPEM, err := authority.ClientCertificate(identity.Name, identity.Groups...)
	if err != nil {
		return failed(err)
	}
	writer, err := newAPIClient(&rest.Config{Host: reader.host, TLSClientConfig: rest.TLSClientConfig{CAData: authority.PEM(), CertData: certPEM, KeyData: keyPEM}})
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{gitops.AnnotationConfirm: source.Status.Awaiting}}})
	if err != nil {
		return failed(err)
	}
	if err := writer.do(cmd.Context(), http.MethodPatch, path, string(body), &source); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "confirmed %s\n", source.Status.Awaiting)
	return nil
}

func kubeconfigCommand() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:     "kubeconfig",
		Short:   "Print the read-only kubeconfig",
		Example: "  slipway kubeconfig > ~/.kube/slipway && kubectl --kubeconfig ~/.kube/slipway get pods -A",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			data, err := os.ReadFile(filepath.Join(dataDir, "kubeconfig"))
			if err != nil {
				return usage("%w: `slipway up` writes it", err)
			}
			_, err = cmd.OutOrStdout().Write(data)
			return failed(err)
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", defaultDataDir, "data directory of slipway up")
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "slipway %s (Kubernetes API %s)\n", version, kubernetesVersion)
			return failed(err)
		},
	}
}
