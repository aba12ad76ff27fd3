#!/usr/bin/env bash
# Installs scenarios of the chart on a real Kubernetes and runs `helm test` in each. Usage: tools/kind.sh [SCENARIO...]
#
# A scenario is a charts/llm-gateway/ci/NAME-values.yaml; without names it is all of them. Builds the image, creates the
# cluster of k8s/kind.yaml where it is not there yet, and leaves it there: `.tools/bin/kind delete cluster --name
# llm-gateway` removes it. A scenario that failed is left there to be looked at; the next run of it removes that. Needs docker and Go. kind and helm are made from Go modules, which Go's checksum database
# vouches for; they are pinned here, as is what scenarios need from elsewhere. helm and kubectl run in a node of the
# cluster, so that no way to its API server is needed and no kubeconfig of yours is touched.
set -eEuo pipefail
cd "$(dirname "$0")/.."

kind_version=v0.33.0
helm_version=v4.2.4
keda=https://github.com/kedacore/keda/releases/download/v2.20.2/keda-2.20.2
gateway_api=https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.4.0/standard-install.yaml
prometheus_operator=https://github.com/prometheus-operator/prometheus-operator/releases/download/v0.87.0/stripped-down-crds.yaml

cluster=llm-gateway
node=$cluster-control-plane
chart=charts/llm-gateway
image=llm-gateway:$(sed -n 's/^appVersion: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' $chart/Chart.yaml)
tools=$PWD/.tools/bin

in_node() { docker exec -i -e KUBECONFIG=/etc/kubernetes/admin.conf "$node" "$@"; }
kubectl() { in_node kubectl "$@"; }
helm() { in_node /charts/helm "$@"; }

apply() { # from the web; server-side, since large definitions do not fit into an annotation
    curl --fail --silent --show-error --location --retry 3 "$1" | kubectl apply --server-side -f -
}

make_tools() { # a distribution's Go may be older than they ask for, and told to fetch no other
    export GOBIN=$tools CGO_ENABLED=0 GOTOOLCHAIN=auto
    go install "sigs.k8s.io/kind@$kind_version"
    go install "helm.sh/helm/v4/cmd/helm@$helm_version"
}

established() { # an API server takes no object of a definition that it does not serve yet
    kubectl wait --for=condition=Established customresourcedefinition --all --timeout=60s
}

make_cluster() {
    "$tools/kind" get clusters | grep -qx "$cluster" ||
        "$tools/kind" create cluster --config k8s/kind.yaml --kubeconfig "$PWD/.tools/kubeconfig" --wait 180s
    "$tools/kind" load docker-image "$image" --name "$cluster"
    in_node rm -rf /charts
    docker cp charts "$node:/charts"
    docker cp "$tools/helm" "$node:/charts/helm"
}

# What a scenario needs besides k8s/ci/NAME.yaml. In `everything` nobody looks after the ScaledObject: the Prometheus
# that it names is not there, and helm would wait in vain for it to be ready.
prepare() {
    case $1 in
    custom-resources)
        helm -n default upgrade --install llm-gateway-crds /charts/llm-gateway-crds --take-ownership
        established
        ;;
    everything)
        apply "$keda-crds.yaml"
        apply "$gateway_api"
        apply "$prometheus_operator"
        established
        ;;
    keda)
        apply "$keda.yaml"
        established
        kubectl -n keda wait --for=condition=Available deployment --all --timeout=300s
        ;;
    esac
}

explain() {
    echo "The scenario $1 failed; what the cluster says:" >&2
    kubectl get pods --all-namespaces -o wide >&2 || true
    kubectl -n "gw-$1" get events --sort-by=.lastTimestamp >&2 || true
    kubectl -n "gw-$1" logs --all-containers --prefix --tail=50 --selector=app.kubernetes.io/instance=gw >&2 || true
}

install() {
    local namespace=gw-$1
    prepare "$1" # first, since objects of a definition that is not there cannot be removed either
    if [ -n "$(kubectl get namespace "$namespace" --ignore-not-found -o name)" ]; then
        uninstall "$1" # what an earlier run left
    fi
    kubectl create namespace "$namespace"
    kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted
    kubectl config set-context --current "--namespace=$namespace"
    if [ -f "k8s/ci/$1.yaml" ]; then
        kubectl apply -f - <"k8s/ci/$1.yaml"
        kubectl wait --for=condition=Available deployment --all --all-namespaces --timeout=300s
    fi
    helm -n "$namespace" install gw /charts/llm-gateway -f "/charts/llm-gateway/ci/$1-values.yaml" --wait --timeout 5m
    helm -n "$namespace" test gw --logs --timeout 5m
}

uninstall() {
    kubectl config set-context --current "--namespace=gw-$1"
    helm -n "gw-$1" uninstall gw --ignore-not-found --wait --timeout 5m
    if [ -f "k8s/ci/$1.yaml" ]; then
        kubectl delete --ignore-not-found --timeout=180s -f - <"k8s/ci/$1.yaml"
    fi
    kubectl delete namespace "gw-$1" --timeout=180s
}

if [ $# = 0 ]; then
    for values in "$chart"/ci/*-values.yaml; do
        name=${values##*/}
        set -- "$@" "${name%-values.yaml}"
    done
fi
for scenario in "$@"; do
    if [ ! -f "$chart/ci/$scenario-values.yaml" ]; then
        echo "$scenario is no scenario: there is no $chart/ci/$scenario-values.yaml" >&2
        exit 1
    fi
done

BUILDER=docker tools/image.sh "$image"
make_tools
make_cluster
trap 'explain "$scenario"' ERR
for scenario in "$@"; do
    echo "== $scenario" >&2
    install "$scenario"
    uninstall "$scenario"
done
echo "All installed and tested: $*" >&2
