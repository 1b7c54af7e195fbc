#!/usr/bin/env bash
# Ceph's S3 server for a trial: one monitor, one disk in memory, one gateway, one admin. $PASSWORD is the admin's secret key.
set -euo pipefail
d=/data fsid=$(cat /proc/sys/kernel/random/uuid) disk=$(cat /proc/sys/kernel/random/uuid) ip=$(hostname -i | cut -d' ' -f1)
rm -rf "$d"/* # of a container before this one
mkdir -p "$d"/{mon,osd,rgw,run}
cat >"$d/ceph.conf" <<C
[global]
fsid = $fsid
mon_host = [v2:$ip:7481/0]
mon_initial_members = a
public_addr = $ip
keyring = $d/keyring
run_dir = $d/run
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_crush_chooseleaf_type = 0
osd_objectstore = memstore
memstore_device_bytes = 1073741824
mon_allow_pool_size_one = true
mon_data = $d/mon
osd_data = $d/osd
rgw_data = $d/rgw
rgw_frontends = beast endpoint=0.0.0.0:7480
rgw_lc_debug_interval = 5
C
c=(-c "$d/ceph.conf")
create=--create-keyring
for entity in mon. client.admin osd.0 client.rgw; do
  ceph-authtool $create "$d/keyring" --gen-key -n "$entity" --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
  create=
done
monmaptool --create --addv a "[v2:$ip:7481]" --fsid "$fsid" "$d/monmap"
ceph-mon "${c[@]}" --mkfs -i a --monmap "$d/monmap" --keyring "$d/keyring"
ceph-mon "${c[@]}" -i a -f &
ceph "${c[@]}" --connect-timeout 60 osd new "$disk"
ceph-osd "${c[@]}" -i 0 --mkfs --osd-uuid "$disk"
ceph-osd "${c[@]}" -i 0 -f &
# Before the gateway listens: who connects finds the admin.
radosgw-admin "${c[@]}" -n client.rgw user create --uid admin --display-name admin --access-key admin \
  --secret-key "$PASSWORD" --caps 'users=*;buckets=*;metadata=*;usage=*;user-policy=*'
exec radosgw "${c[@]}" -n client.rgw -f
