# What goes on inside the node's namespaces: everything here runs there, as its first process or beside it. Sourced by
# `cluster`, with DIR set.

# Starts a part of the node; its words are in $DIR/log/NAME, its process as the node sees it in $DIR/NAME.pid.
part() { # NAME COMMAND…
    local name="$1"
    shift
    setsid "$@" </dev/null >>"$DIR/log/$name" 2>&1 &
    echo $! >"$DIR/$name.pid"
}

# Waits until something is so, as long as the part that it hangs on runs.
until_so() { # NAME COMMAND…
    local name="$1" end=$((SECONDS + 120))
    shift
    until "$@" >/dev/null 2>&1; do
        kill -0 "$(cat "$DIR/$name.pid")" 2>/dev/null || fail "$name ended: $(tail -3 "$DIR/log/$name")"
        [ "$SECONDS" -lt "$end" ] || fail "$name is not ready after 120 s: $(tail -3 "$DIR/log/$name")"
        # Each question costs a tenth of a second of a core, which those who are waited for need.
        sleep 0.2
    done
}

kube() { "$BIN/kube" "$@"; }
admin() { kube kubectl --kubeconfig "$DIR/admin.kubeconfig" "$@"; }

addresses() {
    N=$(cat "$DIR/net")
    HOST="10.$N.255.1" NODE="10.$N.255.2"
    PODS="10.$N.0.0/17" SERVICES="10.$N.128.0/18" API="10.$N.128.1" DNS="10.$N.128.10"
    BIN=$(cat "$DIR/programs")
}

# Mounts that only the node sees, over folders that programs insist on.
folders() {
    local at
    cp /etc/resolv.conf "$DIR/resolv.conf"
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir -p /run/netns
    for at in /var/lib/kubelet /var/log/containers /var/log/pods; do
        mkdir -p "$at" "$DIR/node$at"
        mount --bind "$DIR/node$at" "$at"
    done
    # As on a node of its own: volumes may pass mounts on.
    mount --make-rshared /
}

network() {
    ip link set lo up
    ip addr add "$NODE/30" dev node0
    ip link set node0 up
    ip route add default via "$HOST"
    echo 1 >/proc/sys/net/ipv4/ip_forward
}

# One authority for all. Keys of P-256: made in no time.
keys() {
    local pki="$DIR/pki" name
    mkdir -p "$pki"
    (
        cd "$pki"
        openssl ecparam -name prime256v1 -genkey -noout -out ca.key
        openssl req -x509 -new -key ca.key -days 3650 -subj /CN=switchover-tests -out ca.crt \
            -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature
        openssl ecparam -name prime256v1 -genkey -noout -out sa.key
        openssl ec -in sa.key -pubout -out sa.pub
        certificate apiserver /CN=kube-apiserver "extendedKeyUsage=serverAuth
subjectAltName=IP:$NODE,IP:$API,IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
        certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client extendedKeyUsage=clientAuth
        certificate front-proxy /CN=front-proxy extendedKeyUsage=clientAuth
    ) 2>"$DIR/log/openssl" || fail "no certificates: $(tail -3 "$DIR/log/openssl")"
    # Who is who by a token. A kubeconfig for each.
    : >"$DIR/tokens.csv"
    identity admin admin system:masters
    identity manager system:kube-controller-manager
    identity scheduler system:kube-scheduler
    identity kubelet system:node:node1 system:nodes
    identity proxy system:kube-proxy
    identity dns system:coredns
    identity metrics system:metrics-server
}

certificate() { # NAME SUBJECT EXTENSIONS
    openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
    openssl req -new -key "$1.key" -subj "$2" |
        openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -extfile <(printf 'basicConstraints=CA:FALSE\n%s\n' "$3") -out "$1.crt"
}

identity() { # FILE USER [GROUP]
    local token
    token=$(openssl rand -hex 20)
    printf '%s,%s,%s,"%s"\n' "$token" "$2" "$2" "${3:-}" >>"$DIR/tokens.csv"
    (umask 077 && cat >"$DIR/$1.kubeconfig") <<-YML
	apiVersion: v1
	kind: Config
	clusters: [{name: tests, cluster: {server: "https://$NODE:6443", certificate-authority-data: $(base64 -w0 <"$DIR/pki/ca.crt")}}]
	users: [{name: $1, user: {token: $token}}]
	contexts: [{name: tests, context: {cluster: tests, user: $1}}]
	current-context: tests
	YML
}

etcd_up() {
    part etcd etcd --data-dir "$DIR/etcd" --unsafe-no-fsync --listen-client-urls http://127.0.0.1:2379 \
        --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 --log-level warn
}

api_start() {
    local pki="$DIR/pki"
    addresses
    part apiserver "$BIN/kube" kube-apiserver --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --secure-port=6443 \
        --advertise-address="$NODE" --service-cluster-ip-range="$SERVICES" --allow-privileged=true \
        --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
        --token-auth-file="$DIR/tokens.csv" --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
        --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$pki/sa.pub" \
        --service-account-signing-key-file="$pki/sa.key" --kubelet-preferred-address-types=InternalIP \
        --kubelet-client-certificate="$pki/kubelet-client.crt" --kubelet-client-key="$pki/kubelet-client.key" \
        --requestheader-client-ca-file="$pki/ca.crt" --requestheader-allowed-names=front-proxy \
        --requestheader-extra-headers-prefix=X-Remote-Extra- --requestheader-group-headers=X-Remote-Group \
        --requestheader-username-headers=X-Remote-User --proxy-client-cert-file="$pki/front-proxy.crt" \
        --proxy-client-key-file="$pki/front-proxy.key"
    until_so apiserver api_ready
}

api_ready() { admin --request-timeout=2s get --raw /readyz; }

# It goes as it would when its machine does: without a word to those who are connected.
api_stop() {
    local pid
    pid=$(cat "$DIR/apiserver.pid")
    kill -KILL "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
}

api_pause() { kill -STOP "$(cat "$DIR/apiserver.pid")"; }
api_resume() { kill -CONT "$(cat "$DIR/apiserver.pid")"; }

manager_up() {
    # An autoscaler that acts within a test: by default it takes no notice of a pod's first five minutes.
    part manager "$BIN/kube" kube-controller-manager --kubeconfig="$DIR/manager.kubeconfig" \
        --authentication-kubeconfig="$DIR/manager.kubeconfig" --authorization-kubeconfig="$DIR/manager.kubeconfig" \
        --leader-elect=false --use-service-account-credentials=true --root-ca-file="$DIR/pki/ca.crt" \
        --service-account-private-key-file="$DIR/pki/sa.key" --cluster-cidr="$PODS" --allocate-node-cidrs=false \
        --horizontal-pod-autoscaler-sync-period=5s --horizontal-pod-autoscaler-cpu-initialization-period=20s \
        --horizontal-pod-autoscaler-initial-readiness-delay=5s
}

scheduler_up() {
    part scheduler "$BIN/kube" kube-scheduler --kubeconfig="$DIR/scheduler.kubeconfig" \
        --authentication-kubeconfig="$DIR/scheduler.kubeconfig" --authorization-kubeconfig="$DIR/scheduler.kubeconfig" \
        --leader-elect=false
}

# Where images of a registry are fetched: at the machine's end of the link.
comes_from() { # REGISTRY ADDRESS
    mkdir -p "$DIR/certs.d/$1"
    # As the place itself and as a host of it: containerd 1.6 takes no file without hosts.
    printf 'server = "http://%s"\n[host."http://%s"]\n  capabilities = ["pull", "resolve"]\n' "$HOST:${2##*:}" "$HOST:${2##*:}" \
        >"$DIR/certs.d/$1/hosts.toml"
}

containerd_up() {
    # Only the mirror for Docker Hub: what it does not have is not there, on every machine alike.
    comes_from "$(cat "$DIR/registry")" "$(cat "$DIR/registry")"
    comes_from docker.io "$(cat "$DIR/mirror")"
    mkdir -p "$DIR/cni"
    # Routed, without a bridge: then no setting of the kernel decides whether answers between two pods pass by the node.
    cat >"$DIR/cni/10-pods.conflist" <<-JSON
	{"cniVersion": "1.0.0", "name": "pods", "plugins": [
	  {"type": "ptp", "ipMasq": true, "ipam": {"type": "host-local", "dataDir": "$DIR/addresses", "ranges": [[{"subnet": "$PODS"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
	  {"type": "portmap", "capabilities": {"portMappings": true}}
	]}
	JSON
    cat >"$DIR/containerd.toml" <<-TOML
	version = 2
	root = "$DIR/containerd"
	state = "/run/containerd"
	[grpc]
	  address = "/run/containerd/containerd.sock"
	[plugins."io.containerd.grpc.v1.cri"]
	  sandbox_image = "docker.io/switchover/pause:1"
	  restrict_oom_score_adj = true
	[plugins."io.containerd.grpc.v1.cri".cni]
	  bin_dir = "/usr/lib/cni"
	  conf_dir = "$DIR/cni"
	[plugins."io.containerd.grpc.v1.cri".registry]
	  config_path = "$DIR/certs.d"
	TOML
    part containerd containerd --config "$DIR/containerd.toml" --log-level warn
}

kubelet_up() {
    cat >"$DIR/kubelet.yml" <<-YML
	apiVersion: kubelet.config.k8s.io/v1beta1
	kind: KubeletConfiguration
	authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$DIR/pki/ca.crt"}}
	authorization: {mode: Webhook}
	cgroupDriver: cgroupfs
	cgroupRoot: /swk$N
	failCgroupV1: false
	failSwapOn: false
	oomScoreAdj: 0
	containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
	clusterDomain: cluster.local
	clusterDNS: [$DNS]
	resolvConf: $DIR/resolv.conf
	evictionHard: {memory.available: 10Mi, nodefs.available: 0.1%, nodefs.inodesFree: 0.1%, imagefs.available: 0.1%}
	imageGCHighThresholdPercent: 100
	serializeImagePulls: false
	maxPods: 250
	YML
    # What is measured is found by the kernel's word of new control groups. When many come and go that word is lost, and only
    # the next look at all of them finds the pods: once a minute, unless told otherwise.
    part kubelet "$BIN/kube" kubelet --global-housekeeping-interval=10s --config="$DIR/kubelet.yml" --kubeconfig="$DIR/kubelet.kubeconfig" \
        --root-dir=/var/lib/kubelet --cert-dir="$DIR/kubelet-pki" --hostname-override=node1 --node-ip="$NODE"
}

proxy() { # NAME NODE FLAGS…
    local name="$1" node="$2"
    shift 2
    part "$name" "$@" "$BIN/kube" kube-proxy --kubeconfig="$DIR/proxy.kubeconfig" --hostname-override="$node" --proxy-mode=iptables \
        --cluster-cidr="$PODS" --oom-score-adj=0 --conntrack-max-per-core=0 --conntrack-min=0 \
        --conntrack-tcp-timeout-established=0s --conntrack-tcp-timeout-close-wait=0s $WAIT
}

# Cluster DNS and metrics as processes of the node, under the Services by which they are known.
addons() {
    cat >"$DIR/Corefile" <<-CORE
	.:53 {
	    bind $NODE
	    errors
	    ready $NODE:8181
	    kubernetes cluster.local in-addr.arpa ip6.arpa {
	        kubeconfig $DIR/dns.kubeconfig
	        pods insecure
	        ttl 5
	    }
	    forward . $DIR/resolv.conf
	    cache 5
	}
	CORE
    part dns "$BIN/dns" -conf "$DIR/Corefile"
    sed -e "s/@NODE@/$NODE/g" -e "s/@DNS@/$DNS/g" "$HERE/addons.yml" | admin apply --server-side -f - >"$DIR/log/addons" 2>&1 ||
        fail "DNS and metrics were not taken: $(tail -3 "$DIR/log/addons")"
    # It ends at once when it may not read this yet: the API server takes a moment to know of new rights.
    until_so apiserver metrics_may_begin
    part metrics "$BIN/metrics" --kubeconfig="$DIR/metrics.kubeconfig" --authentication-kubeconfig="$DIR/metrics.kubeconfig" \
        --authorization-kubeconfig="$DIR/metrics.kubeconfig" --bind-address="$NODE" --secure-port=4443 --cert-dir="$DIR/metrics-pki" \
        --kubelet-insecure-tls --kubelet-preferred-address-types=InternalIP --kubelet-request-timeout=5s --metric-resolution=10s
}

node_ready() { admin --request-timeout=5s wait --for=condition=Ready node/node1 --timeout=4s; }
account_there() { admin --request-timeout=2s get serviceaccount default -n default; }
dns_ready() { timeout 2 bash -c "exec 3<>/dev/tcp/$NODE/8181 && printf 'GET /ready HTTP/1.0\r\n\r\n' >&3 && grep -q ' 200 ' <&3"; }
metrics_may_begin() {
    kube kubectl --kubeconfig "$DIR/metrics.kubeconfig" --request-timeout=2s get configmap extension-apiserver-authentication -n kube-system
}
metrics_ready() { timeout 2 bash -c "exec 3<>/dev/tcp/$NODE/4443"; }
cri_ready() { ctr version; }

# The first process: all others of the node are below it and end with it.
node() { # all | api
    until [ -e "$DIR/linked" ]; do sleep 0.05; done
    addresses
    folders
    network
    keys
    etcd_up
    api_start
    manager_up
    if [ "$1" = all ]; then
        WAIT=
        scheduler_up
        until [ -e "$DIR/registries" ]; do sleep 0.05; done
        containerd_up
        until_so containerd cri_ready
        kubelet_up
        proxy proxy node1
        addons
        until_so kubelet node_ready
        until_so dns dns_ready
        until_so metrics metrics_ready
    fi
    until_so manager account_there
    touch "$DIR/ready"
    trap 'exit 0' TERM
    while :; do
        sleep infinity &
        wait $! || true
    done
}

# A second node for Services alone: namespaces of its own behind the first one, and a proxy in them.
slow_up() { # WAIT
    addresses
    local pid
    [ ! -e "$DIR/slow.inner" ] || fail "there is a slow node already"
    setsid unshare --net sleep infinity </dev/null >/dev/null 2>&1 &
    pid=$!
    while [ "$(readlink "/proc/$pid/ns/net")" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
    ip link add slow0 type veth peer name node0 netns "$pid"
    ip addr add "10.$N.255.9/30" dev slow0
    ip link set slow0 up
    nsenter -t "$pid" -n sh -ec "ip link set lo up; ip addr add 10.$N.255.10/30 dev node0; ip link set node0 up
        ip route add default via 10.$N.255.9; echo 1 >/proc/sys/net/ipv4/ip_forward"
    # Its proxy takes the node's address from there, and waits a minute if there is none.
    admin apply -f - >>"$DIR/log/slow-proxy" <<-YML
	apiVersion: v1
	kind: Node
	metadata: {name: node2}
	spec: {unschedulable: true}
	YML
    admin patch node node2 --subresource=status --type=merge \
        -p "{\"status\": {\"addresses\": [{\"type\": \"InternalIP\", \"address\": \"10.$N.255.10\"}]}}" >>"$DIR/log/slow-proxy"
    WAIT="--iptables-min-sync-period=$1"
    proxy slow-proxy node2 nsenter -t "$pid" -n
    until_so slow-proxy nsenter -t "$pid" -n iptables -w -t nat -n -L KUBE-SERVICES
    echo "$pid" >"$DIR/slow.inner"
}
