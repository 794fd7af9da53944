// Command apiclient is a client-go program that runs in a Pod: it lists the Services of its namespace through
// kubernetes.default.svc with its service account, prints their names, and waits to be told to stop.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	config, err := rest.InClusterConfig()
	if err != nil {
		log.Fatal(err)
	}
	config.Host = "https://kubernetes.default.svc" // by name, as the certificate has it
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	list, err := client.CoreV1().Services(os.Getenv("NAMESPACE")).List(ctx, metav1.ListOptions{})
	if err != nil {
		log.Fatal(err)
	}
	var names []string
	for _, service := range list.Items {
		names = append(names, service.Name)
	}
	slices.Sort(names)
	fmt.Println("services:", strings.Join(names, " "))
	if _, err := client.CoreV1().Secrets(os.Getenv("NAMESPACE")).List(ctx, metav1.ListOptions{}); err != nil {
		fmt.Println("secrets:", err)
	}
	<-ctx.Done()
}
