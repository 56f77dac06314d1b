#!/usr/bin/python
# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_notification
short_description: Declare whom backup runs tell
version_added: 0.1.0
description:
  - Declares somebody who is told after each backup run of the node, in C(notifications.cfg), by mail or by a webhook.
  - The mail has a table of the guests and the log of the run, as text and as HTML.
  - A webhook gets the same as JSON by HTTP POST, with the run as M(holdfast.virt.backup_run) returns it under C(run).
  - Who cannot be told does not fail a backup; the run has a warning.
  - Runs with mail addresses in C(mailto) tell those instead, see M(holdfast.virt.backup_run).
author:
  - holdfast.virt contributors (@holdfast-virt)
extends_documentation_fragment:
  - holdfast.virt.attributes
  - holdfast.virt.attributes.idempotent
  - holdfast.virt.location
options:
  name:
    description:
      - Name of the target. It begins with a letter, ends with a letter or digit, and holds letters, digits, C(-), C(_)
        and C(.).
    type: str
    required: true
  state:
    description:
      - With V(present) the target is declared, with V(absent) it is removed together with its secret.
    type: str
    choices: [present, absent]
    default: present
  type:
    description:
      - V(sendmail) hands a mail to the node's own C(sendmail), V(smtp) to a mail server, V(webhook) posts JSON.
      - Needed when the target is declared for the first time.
    type: str
    choices: [sendmail, smtp, webhook]
  rule:
    description:
      - V(always) tells every run that did something, V(failure) those in which something failed.
      - V(change) tells runs that went otherwise than the one of that job before, for any of its guests. What runs for
        the first time counts as having been good before.
      - Default V(always).
    type: str
    choices: [always, failure, change]
  disable:
    description:
      - Keep the target, but do not tell it.
    type: bool
  mailto:
    description:
      - Addresses that get the mail. With V(sendmail) users of the node, too.
    type: list
    elements: str
  from_address:
    description:
      - Sender of the mail. Needed for V(smtp); C(root) for V(sendmail) when unset.
    type: str
  server:
    description:
      - Name or address of the mail server.
    type: str
  port:
    description:
      - Port of the mail server. When unset, the one of O(mode), which is 465, 587 or 25.
    type: int
  mode:
    description:
      - How the connection to the mail server is protected. V(tls), the default, from its beginning; V(starttls) by the
        server's C(STARTTLS), and the mail is not sent where that fails; V(insecure) not at all, which is refused with
        O(username).
    type: str
    choices: [tls, starttls, insecure]
  username:
    description:
      - User to log in to the mail server as.
    type: str
  password:
    description:
      - Password of O(username), in ASCII. It is kept in a file that only root reads,
        C(/etc/holdfast/priv/notifications/NAME.secret), and is only needed once.
    type: str
  url:
    description:
      - Where the webhook is. C({secret}) after the host is replaced by O(secret). Redirections are not followed.
    type: str
  headers:
    description:
      - Further headers of the request. C({secret}) in their values is replaced by O(secret).
    type: dict
  secret:
    description:
      - What stands for C({secret}) in O(url) and O(headers), on one line. It is kept as O(password) is.
    type: str
  ca_file:
    description:
      - File on the node with the certificates of the authorities that are believed, instead of the system's.
    type: path
  purge_options:
    description:
      - Remove options from the target that the task does not set. Otherwise they stay as they are. A secret stays in
        any case, as long as something uses it.
    type: bool
    default: false
seealso:
  - module: holdfast.virt.backup_run
  - module: holdfast.virt.backup_defaults
"""

EXAMPLES = r"""
- name: Tell the administrators by the node's own mail system when a backup failed
  holdfast.virt.backup_notification:
    name: admins
    type: sendmail
    mailto: [root, backup@example.com]
    rule: failure

- name: Use a mail server with a login
  holdfast.virt.backup_notification:
    name: office
    type: smtp
    server: mail.example.com
    mode: starttls
    username: node1
    password: "{{ vault_mail_password }}"
    from_address: node1@example.com
    mailto: [backup@example.com]

- name: Post to a webhook when something changed, and look at it first
  holdfast.virt.backup_notification:
    name: chat
    type: webhook
    url: https://hooks.example.com/backups
    headers: {Authorization: "Bearer {secret}"}
    secret: "{{ vault_hook_token }}"
    rule: change
  check_mode: true
  diff: true

- name: Tell why a target is refused
  block:
    - name: Declare the target of the inventory
      holdfast.virt.backup_notification:
        name: hook
        type: webhook
        url: "{{ hook_url }}"
  rescue:
    - name: Show the remedy
      ansible.builtin.debug:
        msg: "{{ ansible_failed_result.msg }}"
"""

RETURN = r"""
target:
  description: The target after the task, with the keys of C(notifications.cfg). Empty when it is absent.
  returned: success
  type: dict
  sample: {name: admins, type: sendmail, rule: failure, mailto: [root]}
code:
  description: Kind of the failure.
  returned: failure
  type: str
  sample: config
hint:
  description: What can be done about the failure; may be empty.
  returned: failure
  type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.virt.plugins.module_utils.engine.system.host import Host
from ansible_collections.holdfast.virt.plugins.module_utils.support.module import finish
from ansible_collections.holdfast.virt.plugins.module_utils.support.specs import location_spec

OPTIONS: dict[str, Any] = {
    "type": {"type": "str", "choices": ["sendmail", "smtp", "webhook"]},
    "rule": {"type": "str", "choices": ["always", "failure", "change"]},
    "disable": {"type": "bool"},
    "mailto": {"type": "list", "elements": "str"},
    "from_address": {"type": "str"},
    "server": {"type": "str"},
    "port": {"type": "int"},
    "mode": {"type": "str", "choices": ["tls", "starttls", "insecure"]},
    "username": {"type": "str"},
    "url": {"type": "str"},
    "headers": {"type": "dict"},
    "ca_file": {"type": "path"},
}


def declare(module: AnsibleModule, host: Host) -> dict[str, Any]:
    """Bring the target to the asked state, or in check mode only plan to."""
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.changes import apply_change
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.targets import plan_target
    from ansible_collections.holdfast.virt.plugins.module_utils.support.diff import target_difference

    params = module.params
    present = params["state"] == "present"
    change = plan_target(
        host,
        params["name"],
        {name: params[name] for name in OPTIONS} if present else None,
        secret=params["password"] or params["secret"],
        purge=params["purge_options"],
    )
    if change.changed and not module.check_mode:
        apply_change(host, change)
    return {"changed": change.changed, "target": change.after or {}, "diff": target_difference(change)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "password": {"type": "str", "no_log": True},
            "secret": {"type": "str", "no_log": True},
            "purge_options": {"type": "bool", "default": False},
            **OPTIONS,
            **location_spec(),
        },
        mutually_exclusive=[("password", "secret")],
        supports_check_mode=True,
    )
    finish(module, lambda host: declare(module, host))


if __name__ == "__main__":
    main()
